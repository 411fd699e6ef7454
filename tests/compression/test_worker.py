"""The worker end to end over its pipes, with a parent that runs the real trial."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from compression import ladder, report, runtime, samples
from compression.calibration.material import sha256
from compression.choosing.search import STORED
from compression.job import (
    Agreement,
    Budget,
    CompressJob,
    Division,
    Done,
    Failed,
    Measurement,
    PassSpec,
    Progress,
    Recipe,
    TrialJob,
    TrialRequest,
    Tried,
)
from compression.words import Words
from tests.compression import parent
from tests.simulators import models

STATIC = PassSpec(name="quantization")
FEW = tuple(
    Recipe(label=label, passes=(STATIC.model_copy(update={"parameters": parameters}), STORED))
    for label, parameters in (
        ("per-channel", {"weights": "s8-7bit"}),
        ("per-tensor", {"weights": "s8-7bit", "per_channel": False}),
        ("u8 weights", {"weights": "u8"}),
        ("half ranges", {"weights": "s8-7bit", "reach": 0.5}),
    )
)
"""Enough where it is not the search that is tested, which takes its time."""


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    path = models.cnn(tmp_path / "model.onnx", width=32)
    np.savez(tmp_path / "inputs.npz", **models.sample_inputs(path, 40))
    out = tmp_path / "out"
    out.mkdir()
    return CompressJob(
        model_name="small",
        model_path=str(path),
        calibration_path=str(tmp_path / "inputs.npz"),
        budget=Budget(size_ratio=0.5, min_agreement=0.8),
        device_class=parent.HASWELL,
        out_dir=str(out),
        minutes=2,
        recipes=FEW,
    )


def changed(job: CompressJob, **fields) -> CompressJob:
    return job.model_copy(update=fields)


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


def done(said: list[Words]) -> Done:
    assert isinstance(said[-1], Done), said[-1]
    return said[-1]


def test_makes_a_ladder_that_can_be_served(job: CompressJob) -> None:
    said = parent.follow(changed(job, recipes=FEW[:2]))
    found = done(said).ladder
    out = Path(job.out_dir)
    assert ladder.load(out) == found
    for rung in found.rungs:
        assert sha256(out / rung.file) == rung.sha256
        assert rung.file == f"rung-{rung.sha256[:12]}.onnx"
        session = runtime.session(out / rung.file)
        with samples.open_samples(out / str(rung.probe), runtime.inputs(session)) as probe:
            got = runtime.run(session, probe.sample(0))["logits"]
            assert np.allclose(got, probe.expected(0)["logits"], atol=1e-4)
    (original,) = [rung for rung in found.rungs if rung.recipe.label == "original"]
    assert original.measurement.agreement.value == 1.0
    assert original.misses == ("size ratio 1.00 over budget 0.50",)
    assert all(rung.measurement.agreement.guessed for rung in found.rungs)
    assert {path.name for path in out.iterdir()} == {
        "work", "ladder.json", *(r.file for r in found.rungs), *(str(r.probe) for r in found.rungs),
    }  # fmt: skip


def test_what_nobody_named_is_searched_for(job: CompressJob) -> None:
    found = done(parent.follow(changed(job, recipes=()), trial=pretend)).ladder
    tried = [one.recipe.label for one in (*found.rungs, *found.rejected)]
    assert len(set(tried)) == len(tried)
    assert {"original", "simplified", "int8 weights", "int8 per-channel"} <= set(tried)
    assert found.rungs[0].meets_budget


def test_says_what_it_does_and_asks_for_the_original_first(job: CompressJob) -> None:
    reaches = [STATIC.model_copy(update={"parameters": {"reach": at / 10}}) for at in range(4, 9)]
    more = tuple(Recipe(label=str(one), passes=(one,)) for one in reaches)
    job = changed(job, recipes=FEW + more)  # more than ever get a trial
    said = parent.follow(job, trial=pretend)
    requests = [word.job for word in said if isinstance(word, TrialRequest)]
    assert requests[0].original_path == job.model_path
    fractions = [word.fraction for word in said if isinstance(word, Progress)]
    assert fractions == sorted(fractions)
    tried = [word for word in said if isinstance(word, Tried)]
    found = done(said).ladder
    told = [word.rung or word.rejected for word in tried if not word.untried]
    left = [one for word in tried for one in word.untried]
    assert len(told) + len(left) == len(found.rungs) + len(found.rejected)
    assert left == [one for one in found.rejected if not one.tried]
    assert sum(bool(word.untried) for word in tried) == 1
    assert tried[0].rung is not None
    assert tried[0].rung.recipe.label == "original"
    best = found.rungs[0]
    assert best.meets_budget
    assert best.measurement.size_mib < 0.5 * best.measurement.original_size_mib


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


@pytest.mark.parametrize(
    ("scripted", "reason"),
    [({"ratio": 1.5}, "slower than the original"), ({"value": 0.5}, "below 0.800")],
)
def test_a_candidate_that_fails_its_trial_is_rejected_with_its_figures(
    job: CompressJob, scripted: dict[str, float], reason: str
) -> None:
    job = changed(job, budget=Budget(min_agreement=0.8))  # nothing asks for less size
    found = done(parent.follow(job, trial=lambda one: pretend(one, **scripted))).ladder
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
    tried = [one.reason for one in found.rejected if one.measurement is not None]
    assert any(reason in one for one in tried)
    assert all(reason in one or "neither smaller nor faster" in one for one in tried)


def test_a_candidate_whose_trial_dies_is_rejected_and_the_job_goes_on(job: CompressJob) -> None:
    dead = Failed(kind="cannot-run", message="cannot run it: killed by SIGILL")
    size = Path(job.model_path).stat().st_size

    def trial(one: TrialJob) -> Measurement | Failed:
        original = Path(one.candidate_path).stat().st_size == size
        return pretend(one) if original else dead

    found = done(parent.follow(job, trial=trial)).ladder
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
    assert any("SIGILL" in one.reason for one in found.rejected)


def test_an_original_that_cannot_run_fails_the_job(job: CompressJob) -> None:
    dead = Failed(kind="cannot-run", message="killed by SIGILL")
    last = parent.follow(job, trial=lambda _: dead)[-1]
    assert isinstance(last, Failed)
    assert (last.kind, last.message) == (
        "cannot-run",
        "cannot measure the original: killed by SIGILL",
    )


def test_bad_models_and_bad_inputs_fail_the_job_in_one_line(job: CompressJob) -> None:
    Path(job.model_path).write_bytes(b"not a model")
    last = parent.follow(job)[-1]
    assert isinstance(last, Failed)
    assert last.kind == "bad-model"


def test_inputs_of_another_model_fail_the_job(job: CompressJob, tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, x=np.ones((4, 8), np.float32))
    last = parent.follow(changed(job, calibration_path=str(other)))[-1]
    assert isinstance(last, Failed)
    assert last.kind == "bad-inputs"


def test_a_model_with_nothing_to_quantize_keeps_the_original(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Tanh", ["x"], ["y"])]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 4)}, {"y": ("N", 4)})
    np.savez(tmp_path / "i.npz", **models.sample_inputs(path, 10))
    (tmp_path / "out").mkdir()
    job = CompressJob(
        model_name="m", model_path=str(path), calibration_path=str(tmp_path / "i.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path / "out"),
    )  # fmt: skip
    found = done(parent.follow(job)).ladder
    assert [rung.recipe.label for rung in found.rungs] == ["original"]
    (why,) = found.rejected
    assert why.reason.startswith("cannot compress: it has no float weights")


@pytest.mark.parametrize("kill_at", [1, 2, 3])
def test_a_killed_job_run_again_ends_the_same(job: CompressJob, kill_at: int) -> None:
    # Killed while the nth trial is asked for: before anything, after the original, after a rung.
    count = 0

    def kill(word: Words, worker: "subprocess.Popen[bytes]") -> None:
        nonlocal count
        if isinstance(word, TrialRequest):
            count += 1
            if count == kill_at:
                worker.send_signal(signal.SIGKILL)
                worker.wait()

    said = parent.follow(job, on_word=kill, trial=pretend)
    assert not isinstance(said[-1], Done)
    assert not (Path(job.out_dir) / ladder.FILE).exists()
    again = parent.follow(job, trial=pretend)
    asked = sum(isinstance(word, TrialRequest) for word in again)
    fresh_dir = Path(job.out_dir).with_name("fresh")
    (fresh_dir / "work").mkdir(parents=True)
    for note in (Path(job.out_dir) / "work").glob("look-*.json"):
        shutil.copy(note, fresh_dir / "work")  # what a look times is never twice the same
    fresh = parent.follow(changed(job, out_dir=str(fresh_dir)), trial=pretend)
    assert done(again).ladder == done(fresh).ladder
    assert asked == sum(isinstance(word, TrialRequest) for word in fresh) - (kill_at - 1)
    names = [sorted(p.name for p in Path(d).iterdir()) for d in (job.out_dir, fresh_dir)]
    assert names[0] == names[1]


def test_a_rung_that_was_damaged_since_is_made_again(job: CompressJob) -> None:
    found = done(parent.follow(job, trial=pretend)).ladder
    path = Path(job.out_dir) / found.rungs[0].file
    path.write_bytes(b"damaged")
    again = parent.follow(job, trial=pretend)
    assert sum(isinstance(word, TrialRequest) for word in again) == 1
    assert sha256(path) == found.rungs[0].sha256
    assert done(again).ladder == found


def test_ends_when_its_parent_is_gone(job: CompressJob) -> None:
    with parent.start("compression.worker") as worker:
        assert worker.stdin is not None
        worker.stdin.write(job.to_json() + b"\n")
        worker.stdin.close()
        assert worker.wait(60) == 1


def test_a_job_that_cannot_be_read_says_so_and_nothing_else(job: CompressJob) -> None:
    with parent.start("compression.worker") as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(b'{"model_name": 3}\n')
        worker.stdin.flush()
        lines = worker.stdout.read().splitlines()
        worker.stdin.close()
        assert worker.wait(30) == 1
    (line,) = lines
    assert json.loads(line)["type"] == "failed"
    assert "cannot read a line" in json.loads(line)["message"]
