"""The worker as a real process, where memory is bounded: other forms, then cuts, or a near miss."""

import subprocess
from pathlib import Path

import pytest

from compression import judging
from compression.findings import Ladder, Measurement
from compression.job import Budget, CompressJob, MemoryJob, MemoryPeaks, Runtime, TrialJob
from compression.stream import Done, MemoryRequest, TrialRequest
from compression.words import Words
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend

RUNTIME_MIB = 8.0
"""What any model takes, as the scripted scales have it."""


def weighed(path: str, how: Runtime) -> float:
    """4 MiB for each KiB, 3 where it is optimized already, less without patterns."""
    kib = Path(path).stat().st_size / 2**10
    times = 3.0 if how.optimization == "disabled" else 4.0
    return RUNTIME_MIB + kib * times * (1.0 if how.pattern else 0.95)


def scales(job: MemoryJob) -> MemoryPeaks:
    return MemoryPeaks(peaks_mib=tuple(weighed(job.model_path, how) for how in job.ways))


def trial(job: TrialJob) -> Measurement:
    peaks = {
        "peak_memory_mib": weighed(job.candidate_path, job.runtime),
        "original_peak_memory_mib": weighed(job.original_path, Runtime()),
    }
    return pretend(job).model_copy(update=peaks)


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    return small_jobs.of_mlp(tmp_path, minutes=10)


def asked(job: CompressJob, share: float, **fields: float) -> Budget:
    """A budget of memory for the runtime and a share of what the original adds to it."""
    original = weighed(job.model_path, Runtime()) - RUNTIME_MIB
    peak = RUNTIME_MIB + share * original
    bound = peak / (1 - judging.MEMORY_MARGIN)
    return Budget(peak_memory_mib=bound, **({"min_agreement": 0.8} | fields))


def run(job: CompressJob, budget: Budget) -> tuple[Ladder, list[Words]]:
    work = job.model_copy(update={"budget": budget})
    said = parent.follow(work, trial=trial, memory=scales)
    assert isinstance(said[-1], Done), said[-1]
    return said[-1].ladder, said


@pytest.mark.prove
@pytest.mark.parametrize("bound", [{"size_ratio": 0.5}, {"peak_memory_mib": 1000.0}])
def test_where_memory_is_not_bound_nothing_is_weighed(
    job: CompressJob, bound: dict[str, float]
) -> None:
    found, said = run(job, Budget(min_agreement=0.8, **bound))
    assert not any(isinstance(word, MemoryRequest) for word in said)
    assert all(rung.runtime == Runtime() for rung in found.rungs)


def test_integers_that_are_too_large_as_they_are_fit_in_another_form(job: CompressJob) -> None:
    found, _ = run(job, asked(job, 0.3))
    best = found.rungs[0]
    assert best.meets_budget
    assert best.recipe.passes[-1].name == "prepared"
    assert best.runtime.optimization == "disabled"


def test_what_no_form_reaches_is_cut(job: CompressJob) -> None:
    budget = asked(job, 0.2)
    found, _ = run(job, budget)
    best = found.rungs[0]
    assert best.meets_budget
    assert best.recipe.passes[0].name == "structured_pruning"
    assert best.measurement.peak_memory_mib <= (budget.peak_memory_mib or 0)


@pytest.mark.prove
def test_a_job_that_is_called_again_weighs_nothing_and_finds_the_same(job: CompressJob) -> None:
    first, _ = run(job, asked(job, 0.3))
    again, said = run(job, asked(job, 0.3))
    assert not any(isinstance(word, MemoryRequest) for word in said)
    assert [rung.sha256 for rung in again.rungs] == [rung.sha256 for rung in first.rungs]


@pytest.mark.prove
def test_a_bound_below_the_runtime_itself_is_missed_by_the_nearest(job: CompressJob) -> None:
    found, _ = run(job, Budget(peak_memory_mib=RUNTIME_MIB / 2, min_agreement=0.8))
    assert not any(rung.meets_budget for rung in found.rungs)
    nearest = found.rungs[0]
    assert any(miss.startswith("peak memory") for miss in nearest.misses)
    least = min(rung.measurement.peak_memory_mib for rung in found.rungs)
    assert nearest.measurement.peak_memory_mib == least


@pytest.mark.prove
def test_scales_that_die_cost_no_ladder(job: CompressJob) -> None:
    work = job.model_copy(update={"budget": asked(job, 0.5)})
    said = parent.follow(
        work, trial=trial, memory=lambda _: parent.Failed(kind="cannot-run", message="killed")
    )
    assert isinstance(said[-1], Done), said[-1]
    assert any(rung.meets_budget for rung in said[-1].ladder.rungs)  # by the trial's own scales


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_killed_ten_times_it_ends_with_a_ladder_that_another_call_finds_again(
    job: CompressJob,
) -> None:
    job = job.model_copy(update={"minutes": 120.0})  # none of it is left out for want of time
    work = job.model_copy(update={"budget": asked(job, 0.3)})
    told = 0
    for kill in range(10):

        def end(_: Words, worker: "subprocess.Popen[bytes]", *, at: int = 3 + 4 * kill) -> None:
            nonlocal told
            told += 1
            if told == at:
                worker.kill()

        told = 0
        said = parent.follow(work, on_word=end, trial=trial, memory=scales)
        assert not isinstance(said[-1], Done), f"it was over before kill {kill}"
    found, _ = run(job, asked(job, 0.3))
    again, said = run(job, asked(job, 0.3))
    assert not any(isinstance(word, MemoryRequest | TrialRequest) for word in said)
    assert [(one.sha256, one.runtime) for one in again.rungs] == [
        (one.sha256, one.runtime) for one in found.rungs
    ]
    assert found.rungs[0].meets_budget
    files = {path.name for path in Path(job.out_dir).glob("rung-*")}
    assert files == {rung.file for rung in found.rungs}
