"""The worker as a real process, where a budget asks for more than int8: what it proposes to cut."""

from pathlib import Path

import numpy as np
import pytest

from compression.findings import Ladder
from compression.job import Budget, CompressJob, KernelCosts
from compression.regular import reading
from compression.stream import Done, KernelRequest, TrialAnswer
from compression.words import Words
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    budget = Budget(size_ratio=0.18, min_agreement=0.8)
    return small_jobs.of_mlp(tmp_path, minutes=10, budget=budget)


def ladder(said: list[Words]) -> Ladder:
    assert isinstance(said[-1], Done), said[-1]
    return said[-1].ladder


def cuts(found: Ladder) -> dict[str, float | None]:
    every = [*found.rungs, *found.rejected]
    return {
        one.recipe.label: one.predicted_ratio
        for one in every
        if one.recipe.label.startswith("pruned")
    }


def test_what_int8_cannot_reach_is_cut_and_forecast(job: CompressJob) -> None:
    said = parent.follow(job, trial=pretend)
    asked = [word.job for word in said if isinstance(word, KernelRequest)]
    found = ladder(said)
    best = found.rungs[0]
    assert asked
    assert best.meets_budget
    assert best.recipe.passes[0].name == "structured_pruning"
    assert best.measurement.size_mib <= 0.18 * best.measurement.original_size_mib
    assert best.predicted_ratio is not None
    assert 0 < best.predicted_ratio < 2
    widths = best.recipe.passes[0].parameters["keep"]
    held = reading.load(Path(job.out_dir) / best.file).graph.initializer
    assert any(width in tensor.dims for width in widths.values() for tensor in held)
    assert not [path for path in (Path(job.out_dir) / "work").iterdir() if "kernel-" in path.name]


@pytest.mark.prove
def test_a_job_that_is_called_again_times_nothing_and_finds_the_same(job: CompressJob) -> None:
    first = ladder(parent.follow(job, trial=pretend))
    again = parent.follow(job, trial=pretend)
    assert not any(isinstance(word, KernelRequest) for word in again)
    found = ladder(again)
    assert cuts(found) == cuts(first)
    assert [rung.sha256 for rung in found.rungs] == [rung.sha256 for rung in first.rungs]


@pytest.mark.parametrize("budget", [Budget(), Budget(size_ratio=0.5)])
def test_where_int8_will_do_nothing_is_cut_or_timed(job: CompressJob, budget: Budget) -> None:
    said = parent.follow(job.model_copy(update={"budget": budget}), trial=pretend)
    assert not any(isinstance(word, KernelRequest) for word in said)
    assert not cuts(ladder(said))


def test_too_few_inputs_to_choose_by_are_the_reason_that_is_given(
    job: CompressJob, tmp_path: Path
) -> None:
    few = tmp_path / "few.npz"
    np.savez(few, **models.sample_inputs(Path(job.model_path), 9))
    said = parent.follow(job.model_copy(update={"calibration_path": str(few)}), trial=pretend)
    reasons = {one.recipe.label: one.reason for one in ladder(said).rejected}
    assert reasons["pruned"].startswith("cannot choose channels by")


def test_kernels_that_nobody_can_time_cost_no_ladder(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(one: object) -> KernelCosts:
        del one
        return KernelCosts(costs=(), timed=0, reference_us=0.0)

    monkeypatch.setattr(parent, "time_kernels", refused)
    said = parent.follow(job.model_copy(update={"minutes": 0.5}), trial=pretend)
    found = ladder(said)
    assert any(isinstance(word, KernelRequest) for word in said)
    assert [rung.recipe.label for rung in found.rungs if rung.recipe.label == "original"]
    assert TrialAnswer(kernels=refused(None)).kernels is not None


@pytest.mark.prove
def test_where_nothing_is_forecast_to_be_so_fast_the_fastest_is_looked_at(
    job: CompressJob,
) -> None:
    budget = Budget(latency_ratio=1e-3, min_agreement=0.8)
    said = parent.follow(job.model_copy(update={"budget": budget}), trial=pretend)
    found = ladder(said)
    assert not any(rung.meets_budget for rung in found.rungs)
    assert all(predicted is None or predicted > 1e-3 for predicted in cuts(found).values())
    assert cuts(found)


@pytest.mark.prove
def test_cuts_are_just_as_deep_as_the_budget_asks(job: CompressJob) -> None:
    def gentlest(share: float) -> float:
        """Of the cuts that are within the bound, the largest file's share of the original's."""
        budget = Budget(size_ratio=share, min_agreement=0.5)
        found = ladder(parent.follow(job.model_copy(update={"budget": budget}), trial=pretend))
        assert found.rungs[0].meets_budget
        sizes = [
            one.measurement.size_mib / one.measurement.original_size_mib
            for one in found.rungs
            if one.recipe.label in cuts(found)
        ]
        return max(size for size in sizes if size <= share)

    for share in (0.18, 0.22):
        assert gentlest(share) > 0.85 * share
