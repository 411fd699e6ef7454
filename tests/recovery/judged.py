"""A job in this process: its trials tell true sizes and true agreement, and take no time."""

from pathlib import Path

from compression import agreement, runtime, samples
from compression.choosing.climb import Climb
from compression.job import (
    CompressJob,
    KernelJob,
    Ladder,
    Rejected,
    Rung,
    TrialAnswer,
    TrialJob,
)
from tests.compression.test_worker import pretend


class Judging:
    """Hears everything; answers trials by running both models."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def progress(self, stage: str, message: str, fraction: float) -> None:
        assert 0 <= fraction <= 1
        self.said.append((stage, message))

    def tried(self, found: Rung | Rejected) -> None: ...

    def untried(self, left: tuple[Rejected, ...]) -> None: ...

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

    def kernels(self, job: KernelJob) -> TrialAnswer:
        raise AssertionError(f"nobody needs {job}")

    def memory(self, job: object) -> TrialAnswer:
        raise AssertionError(f"nobody needs {job}")


def climb(job: CompressJob) -> tuple[Ladder, Judging]:
    """Run a job to its ladder."""
    listener = Judging()
    return Climb(job, listener).run(), listener
