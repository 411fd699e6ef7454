"""A job in this process: its trials tell true sizes and true agreement, and take no time."""

from pathlib import Path

from compression import agreement, runtime, samples
from compression.choosing.climb import Climb
from compression.findings import Ladder
from compression.job import CompressJob, TrialJob
from compression.stream import TrialAnswer
from tests.compression.pretended import Quiet, pretend


class Judging(Quiet):
    """Answers trials by running both models."""

    def trial(self, job: TrialJob) -> TrialAnswer:
        how = runtime.options(job.runtime)
        original, candidate = (
            runtime.session(Path(path), how) for path in (job.original_path, job.candidate_path)
        )
        judge = agreement.Judge(job.outputs)
        with samples.open_samples(Path(job.inputs_path), runtime.inputs(original)) as inputs:
            for index in job.sample_indices or range(len(inputs)):
                feeds = inputs.sample(index)
                judge.add(runtime.run(original, feeds), runtime.run(candidate, feeds))
        found = judge.agreement(job.split)
        return TrialAnswer(measurement=pretend(job).model_copy(update={"agreement": found}))


def climb(job: CompressJob) -> tuple[Ladder, Judging]:
    """Run a job to its ladder."""
    listener = Judging()
    return Climb(job, listener).run(), listener
