"""Which inputs of a job calibrate, choose and report, end to end over the worker's pipes."""

from pathlib import Path

import numpy as np
import pytest

from compression import report
from compression.findings import Division, Measurement
from compression.job import Budget, CompressJob, TrialJob
from compression.stream import Failed, TrialRequest
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend
from tests.compression.small_jobs import FEW, changed, done
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    return small_jobs.of_cnn(tmp_path)


def test_what_reports_has_neither_calibrated_nor_chosen(job: CompressJob) -> None:
    said = parent.follow(job, trial=pretend)
    trials = [word.job for word in said if isinstance(word, TrialRequest)]
    by_split = {one.split: set(one.sample_indices or ()) for one in trials}
    assert set(by_split) == {"choosing", "held-out"}
    assert by_split["choosing"].isdisjoint(by_split["held-out"])
    found = done(said).ladder
    assert found.division == Division(
        calibrating=14, choosing=12, reporting=14, split="held-out", sources=40
    )
    assert (len(by_split["choosing"]), len(by_split["held-out"])) == (12, 14)


def test_rungs_are_chosen_on_one_part_and_report_on_the_other(job: CompressJob) -> None:
    said = parent.follow(job, trial=lambda one: pretend(one, values={"held-out": 0.9}))
    (original, *others) = sorted(done(said).ladder.rungs, key=lambda r: r.chosen_by is not None)
    assert original.recipe.label == "original"
    assert others
    for rung in others:
        assert rung.meets_budget
        assert rung.chosen_by is not None
        assert (rung.chosen_by.value, rung.chosen_by.split) == (0.95, "choosing")
        reported = rung.measurement.agreement
        assert (reported.value, reported.split) == (0.9, "held-out")


def test_no_order_comes_from_what_reports(job: CompressJob) -> None:
    # The one that was chosen as the better one reports the worse figure, and stays first.
    seen: dict[str, dict[str, float]] = {}
    better, worse = ({"choosing": 0.97, "held-out": 0.85}, {"choosing": 0.93, "held-out": 0.99})

    def trial(one: TrialJob) -> Measurement:
        if one.candidate_path not in seen and one.split == "choosing":
            seen[one.candidate_path] = worse if seen else better
        return pretend(one, values=seen.get(one.candidate_path, {}))

    found = done(parent.follow(job, trial=trial)).ladder
    meeting = [rung.measurement.agreement.value for rung in found.rungs if rung.meets_budget]
    assert len(meeting) > 1
    assert meeting == [0.85, *[0.99] * (len(meeting) - 1)]


def test_a_rung_that_reports_too_little_misses_and_the_next_are_tried(job: CompressJob) -> None:
    seen: list[str] = []

    def trial(one: TrialJob) -> Measurement:
        if one.split == "choosing":
            seen.append(one.candidate_path)
        bad = one.split == "held-out" and one.candidate_path in seen[:2]
        return pretend(one, value=0.7 if bad else 0.95)

    found = done(parent.follow(job, trial=trial)).ladder
    assert len(seen) > 2
    assert found.rungs[0].meets_budget
    assert found.rungs[0].measurement.agreement.value == 0.95
    missing = [rung for rung in found.rungs if rung.measurement.agreement.value == 0.7]
    assert len(missing) == 2
    for rung in missing:
        assert not rung.meets_budget
        assert "agreement 0.700 (logits, 20 held-out samples) below 0.800" in rung.misses


def test_where_nobody_says_the_least_agreement_is_still_asked_of_the_report(
    job: CompressJob,
) -> None:
    said = parent.follow(
        changed(job, budget=Budget(size_ratio=0.5)),
        trial=lambda one: pretend(one, values={"choosing": 0.985, "held-out": 0.97}),
    )
    found = done(said).ladder
    assert found.budget.min_agreement == 0.98
    assert not any(rung.meets_budget for rung in found.rungs)


def test_an_evaluation_set_reports_instead(job: CompressJob, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.npz"
    np.savez(path, **models.sample_inputs(Path(job.model_path), 7, seed=5))
    said = parent.follow(changed(job, evaluation_path=str(path)), trial=pretend)
    first = next(word.job for word in said if isinstance(word, TrialRequest))
    assert (first.inputs_path, first.split) == (str(path), "evaluation")
    assert first.sample_indices == tuple(range(7))
    assert done(said).ladder.division == Division(
        calibrating=20, choosing=20, reporting=7, split="evaluation", sources=40
    )


def test_samples_of_one_source_stay_in_one_part(job: CompressJob, tmp_path: Path) -> None:
    path = tmp_path / "sources.npz"
    rows = models.sample_inputs(Path(job.model_path), 40)
    sources = np.arange(40) // 5
    np.savez(path, **rows, **{"::source": sources})
    said = parent.follow(changed(job, calibration_path=str(path)), trial=pretend)
    trials = [word.job for word in said if isinstance(word, TrialRequest)]
    parts = {one.split: {sources[at] for at in one.sample_indices or ()} for one in trials}
    assert parts["choosing"].isdisjoint(parts["held-out"])
    division = done(said).ladder.division
    assert division is not None
    assert division.sources == 8


def test_one_sample_does_all_and_its_figures_say_so(job: CompressJob, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, **models.sample_inputs(Path(job.model_path), 1))
    job = changed(job, calibration_path=str(path), recipes=FEW[:1])
    found = done(parent.follow(job)).ladder
    for rung in found.rungs:
        agreement = rung.measurement.agreement
        assert (agreement.split, agreement.samples) == ("calibration", 1)
        assert agreement.low < 0.25  # whatever the one sample says
    assert "too few to keep apart" in report.table(found)


@pytest.mark.parametrize("which", ["calibration_path", "evaluation_path"])
def test_one_sample_that_is_not_finite_fails_the_job_before_any_trial(
    job: CompressJob, tmp_path: Path, which: str
) -> None:
    rows = models.sample_inputs(Path(job.model_path), 9)
    next(iter(rows.values()))[7].flat[0] = np.nan
    path = tmp_path / "bad.npz"
    np.savez(path, **rows)
    said = parent.follow(changed(job, **{which: str(path)}))
    assert isinstance(said[-1], Failed)
    assert said[-1].kind == "bad-inputs"
    assert "sample 7 holds NaN" in said[-1].message
    assert not any(isinstance(word, TrialRequest) for word in said)


def test_without_inputs_made_up_ones_stand_in_and_no_variant_is_verified(job: CompressJob) -> None:
    said = parent.follow(changed(job, calibration_path=None), trial=pretend)
    for rung in done(said).ladder.rungs:
        assert rung.verified is (rung.recipe.label == "original")  # which answers as itself
