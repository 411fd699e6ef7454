"""Trials, models and inputs that fail, and workers that are killed: what becomes of the job."""

import io
import json
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import EncodeError

from compression import ladder, worker
from compression.calibration.material import sha256
from compression.findings import Measurement
from compression.job import Budget, CompressJob, TrialJob
from compression.stream import Done, Failed, TrialRequest
from compression.words import Words
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend
from tests.compression.small_jobs import changed, done
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> CompressJob:
    return small_jobs.of_cnn(tmp_path)


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


@pytest.mark.parametrize("refused", [MemoryError("malloc"), EncodeError("Failed to serialize")])
def test_a_worker_that_is_refused_memory_says_so_whoever_asked_for_it(
    job: CompressJob, monkeypatch: pytest.MonkeyPatch, refused: Exception
) -> None:
    class Stdin:
        def line(self) -> bytes:
            return job.to_json()

    def run(_: object) -> None:
        raise refused

    monkeypatch.setattr(worker.Climb, "run", run)
    last = worker._work(worker.Parent(io.StringIO(), Stdin()), Stdin())  # type: ignore[arg-type]  # a line is all
    assert isinstance(last, Failed)
    assert last.kind == "out-of-budget"
    assert last.message == f"cannot go on: out of memory ({refused})"
