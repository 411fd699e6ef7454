"""Stands in for a trial where it is not what is tested: true sizes, and figures that are given."""

from pathlib import Path

from compression.findings import Agreement, Measurement, Rejected, Rung
from compression.job import KernelJob, TrialJob
from compression.stream import TrialAnswer


def pretend(
    job: TrialJob,
    *,
    ratio: float = 0.5,
    value: float = 0.95,
    values: dict[str, float] | None = None,
) -> Measurement:
    """A scripted answer with the true sizes, where the trial itself is not what is tested.

    `values` are the agreement by split.
    """
    value = (values or {}).get(job.split, value)
    candidate, original = Path(job.candidate_path), Path(job.original_path)
    size, whole = candidate.stat().st_size / 2**20, original.stat().st_size / 2**20
    same = size == whole
    agreement = Agreement(
        value=1.0 if same else value, low=value - 0.01, high=1, kind="logits", output="logits",
        samples=20, split=job.split,
    )  # fmt: skip
    ratio = 1.0 if same else ratio
    return Measurement(
        latency_p50_ms=1, latency_p95_ms=1, original_latency_p50_ms=1, original_latency_p95_ms=1,
        latency_ratio=ratio, ratio_basis="wall", wall_ratio=ratio, cpu_ratio=ratio, noise=0.01,
        cpu_ms_per_inference=1, original_cpu_ms_per_inference=1, peak_memory_mib=9,
        original_peak_memory_mib=9, size_mib=size, original_size_mib=whole, agreement=agreement,
        sqnr_db={"logits": 30.0}, threads=1, samples=20, rounds=30, method={},
    )  # fmt: skip


class Quiet:
    """A job's listener in this process: hears everything, and answers trials with sizes alone."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def progress(self, stage: str, message: str, fraction: float) -> None:
        assert 0 <= fraction <= 1
        self.said.append((stage, message))

    def tried(self, found: Rung | Rejected) -> None: ...

    def untried(self, left: tuple[Rejected, ...]) -> None: ...

    def trial(self, job: TrialJob) -> TrialAnswer:
        return TrialAnswer(measurement=pretend(job))

    def kernels(self, job: KernelJob) -> TrialAnswer:
        raise AssertionError(f"nobody needs {job}")

    def memory(self, job: object) -> TrialAnswer:
        raise AssertionError(f"nobody needs {job}")
