"""The two trials of a candidate: one on the inputs that choose, one on those that report."""

from pathlib import Path
from typing import Protocol

from compression import working
from compression.calibration.material import Material
from compression.choosing.shelf import Shelf
from compression.findings import Measurement, Rejected, Rung
from compression.job import CompressJob, KernelJob, MemoryJob, Runtime, TrialJob
from compression.stream import TrialAnswer

ROUNDS = 24
MOST_SECONDS = 60.0
TRIAL_SHARE = 1 / 8
"""Of the job's time, for one trial: a candidate needs two, and several are to be tried."""
MARGIN = 1.25
"""Of a trial over the longest one before it."""
_BASELINE_SECONDS = 5.0


class Listener(Protocol):
    """Who hears of the work and runs the trials."""

    def progress(self, stage: str, message: str, fraction: float) -> None:
        """Hear what is being done; `fraction` is of the whole job."""

    def tried(self, found: Rung | Rejected) -> None:
        """Hear what became of one candidate."""

    def untried(self, left: tuple[Rejected, ...]) -> None:
        """Hear of the candidates that others made needless."""

    def trial(self, job: TrialJob) -> TrialAnswer:
        """Run a trial."""

    def kernels(self, job: KernelJob) -> TrialAnswer:
        """Time kernels."""

    def memory(self, job: MemoryJob) -> TrialAnswer:
        """See what a file takes in memory."""


class Trials:
    """Asks for trials as one job needs them."""

    def __init__(
        self, job: CompressJob, material: Material, shelf: Shelf, listener: Listener
    ) -> None:
        self.runtime = Runtime(threads=job.budget.threads or 1)
        self.once_ms: float | None = None
        """How long the original takes, once it is known."""
        self._job = job
        self._material = material
        self._shelf = shelf
        self._taken_s: dict[int, float] = {}
        self._listener = listener

    def choosing(self, file: Path, how: Runtime | None = None) -> TrialAnswer:
        """Measure a candidate, run as `how` says, on the inputs that decide about it."""
        job = self._common(file, len(self._material.choosing), how)
        where = {
            "inputs_path": str(self._material.inputs_path),
            "sample_indices": self._material.choosing,
            "split": "choosing",
            "each": True,
        }
        return self._ask(job.model_copy(update=where))

    def reporting(self, file: Path, key: str, how: Runtime | None = None) -> TrialAnswer:
        """Measure a candidate that is decided about, and write its probe."""
        job = self._common(file, len(self._material.report), how)
        return self._ask(job.model_copy(update={"probe_path": str(self._shelf.probe(key))}))

    def seconds(self, count: int) -> float:
        """How long a trial on `count` samples may take: its pauses, half as much again, loads."""
        if self.once_ms is None:
            return _BASELINE_SECONDS
        runs = 2 * count + 3 * ROUNDS + 20
        most = min(MOST_SECONDS, TRIAL_SHARE * 60 * self._job.minutes)
        return max(3.0, min(most, 3 * runs * self.once_ms / 1000 + 1.0))

    def expected_s(self, count: int) -> float:
        """How long a trial on `count` samples will take: as long as the longest one has taken.

        Before any has, as long as it may.
        """
        taken = self._taken_s.get(count)
        return self.seconds(count) if taken is None else min(MARGIN * taken, self.seconds(count))

    def _ask(self, job: TrialJob) -> TrialAnswer:
        began = working.now_s()
        answer = self._listener.trial(job)
        count = len(job.sample_indices or ())
        if answer.measurement is not None and self.once_ms is not None:
            taken = working.now_s() - began
            self._taken_s[count] = max(taken, self._taken_s.get(count, 0.0))
        return answer

    def marked(self, found: Measurement) -> Measurement:
        """Mark the agreement as a guess where nobody named the output's kind."""
        guessed = found.agreement.output in self._material.guessed
        agreement = found.agreement.model_copy(update={"guessed": guessed})
        return found.model_copy(update={"agreement": agreement})

    def _common(self, file: Path, count: int, how: Runtime | None) -> TrialJob:
        material = self._material
        return TrialJob(
            candidate_path=str(file),
            original_path=self._job.model_path,
            inputs_path=str(material.report_path),
            sample_indices=material.report,
            split=material.division.split,
            inputs=self._job.inputs,
            outputs=material.outputs,
            runtime=how or self.runtime,
            rounds=ROUNDS,
            seconds=self.seconds(count),
        )
