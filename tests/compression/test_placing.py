"""The worker as a real process: its ladder says how near each rung is, the nearest first."""

from pathlib import Path

import pytest

from compression import judging, ladder
from compression.findings import Ladder
from compression.job import Budget, TrialJob
from tests.compression import parent, small_jobs


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ladder, Ladder, list[str]]:
    """A ladder, the one of a second run, and what that run asked for."""
    job = small_jobs.of_cnn(tmp_path_factory.mktemp("placing"))
    first = small_jobs.done(parent.follow(job)).ladder
    asked: list[str] = []

    def listened(job: TrialJob) -> object:
        asked.append(job.split)
        return parent.run_trial(job)

    return first, small_jobs.done(parent.follow(job, trial=listened)).ladder, asked


def test_every_rung_says_how_near_it_is_and_the_original_is_nearest(
    found: tuple[Ladder, Ladder, list[str]],
) -> None:
    rungs = found[0].rungs
    assert len(rungs) > 2
    near = {rung.recipe.label: rung.nearness for rung in rungs}
    assert all(near.values())
    assert (near["original"].place, near["original"].loss) == (0, 0.0)
    assert all(one.loss > 0 for label, one in near.items() if label != "original")
    assert all(rung.measurement.each is None for rung in rungs)
    assert all(one.measurement.each is None for one in found[0].rejected if one.measurement)


def test_the_first_rung_is_no_farther_than_any_other_int8_that_fits(
    found: tuple[Ladder, Ladder, list[str]],
) -> None:
    one = found[0]
    first, cores = one.rungs[0], one.device_class.cores
    able = [rung for rung in one.rungs if judging.surely(rung, one.budget, cores=cores)]
    assert first in able
    felt = [max(ladder.UNFELT, rung.nearness.loss) for rung in able]
    assert first.nearness.place == min(rung.nearness.place for rung in able) or max(
        ladder.UNFELT, first.nearness.loss
    ) == min(felt)
    # Where time binds, what nobody feels counts too: the nearest of all.
    most = max(rung.measurement.ratio_high for rung in able) + 0.01
    if most < 1.0:
        timed = Budget(latency_ratio=most, min_agreement=0.5)
        chosen = ladder.pick(one, timed)
        assert chosen.nearness.place == min(rung.nearness.place for rung in able)


def test_what_is_told_of_time_holds_what_two_processes_said(
    found: tuple[Ladder, Ladder, list[str]],
) -> None:
    for rung in found[0].rungs:
        m = rung.measurement
        assert m.ratio_low <= m.latency_ratio <= m.ratio_high
        if rung.recipe.passes:
            assert "of two processes" in m.method["processes"]
            assert judging.margin(m) >= 0.05 - 1e-9


def test_a_run_that_goes_on_asks_nothing_and_finds_the_same_places(
    found: tuple[Ladder, Ladder, list[str]],
) -> None:
    first, again, asked = found
    assert asked == []
    assert [rung.nearness for rung in again.rungs] == [rung.nearness for rung in first.rungs]
    assert [rung.sha256 for rung in again.rungs] == [rung.sha256 for rung in first.rungs]


def test_what_another_budget_picks_is_ordered_by_the_same_places(
    found: tuple[Ladder, Ladder, list[str]], tmp_path: Path
) -> None:
    kept = ladder.load(ladder.save(found[0], tmp_path).parent)
    sizes = sorted({rung.measurement.size_mib for rung in kept.rungs})
    for most in sizes[:-1]:
        budget = Budget(size_mib=most, min_agreement=0.5)
        picked = ladder.pick(kept, budget)
        assert picked is not None
        fitting = [r for r in kept.rungs if r.measurement.size_mib <= most and r.recipe.passes]
        least = min(r.nearness.loss for r in fitting)
        assert (
            picked.nearness.loss <= max(ladder.UNFELT, least * 1.25) or picked.nearness.place == 0
        )
