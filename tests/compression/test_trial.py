"""The trial as a real process: what it measures, and how it says that there is nothing to."""

import contextlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compression import runtime, samples
from compression.findings import Measurement
from compression.job import OutputSpec, Runtime, TrialJob
from compression.stream import Failed
from tests.compression import parent
from tests.simulators import models

LOGITS = (OutputSpec(name="logits", kind="logits"),)


@pytest.fixture
def job(tmp_path: Path) -> TrialJob:
    path = models.cnn(tmp_path / "original.onnx")
    np.savez(tmp_path / "inputs.npz", **models.sample_inputs(path, 12))
    other = models.cnn(tmp_path / "candidate.onnx", seed=1)
    return TrialJob(
        candidate_path=str(other),
        original_path=str(path),
        inputs_path=str(tmp_path / "inputs.npz"),
        outputs=LOGITS,
        rounds=5,
        seconds=1,
    )


def changed(job: TrialJob, **fields) -> TrialJob:
    return job.model_copy(update=fields)


def failed(job: TrialJob) -> Failed:
    found = parent.run_trial(job)
    assert isinstance(found, Failed)
    assert "\n" not in found.message
    return found


def measured(job: TrialJob) -> Measurement:
    found = parent.run_trial(job)
    assert isinstance(found, Measurement), found
    return found


def test_measures_time_memory_size_and_agreement(job: TrialJob) -> None:
    found = measured(changed(job, sample_indices=(1, 3, 5, 7), split="evaluation"))
    assert 3 <= found.rounds < 24
    assert found.samples == found.agreement.samples == 4
    assert found.agreement.split == "evaluation"
    assert found.agreement.value < 1.0  # another network
    assert found.sqnr_db["logits"] < 20
    assert found.size_mib == Path(job.candidate_path).stat().st_size / 2**20
    assert 0 < found.latency_p50_ms <= found.latency_p95_ms
    assert 0 < found.peak_memory_mib < 200
    assert found.ratio_basis == ("wall" if found.noise <= 0.05 else "cpu")
    ratios = {"wall": found.wall_ratio, "cpu": found.cpu_ratio}
    assert found.latency_ratio == ratios[found.ratio_basis]
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low <= found.latency_ratio <= found.ratio_high
    told = {"memory", "latency", "ratio", "noise", "pace", "clock", "load", "scheduling"}
    assert told <= set(found.method)


def test_the_original_against_itself_is_equal(job: TrialJob) -> None:
    found = measured(changed(job, candidate_path=job.original_path))
    assert (found.agreement.value, found.latency_ratio, found.sqnr_db["logits"]) == (1, 1, 200)
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low <= 1.0 <= found.ratio_high
    assert found.peak_memory_mib == found.original_peak_memory_mib


def test_a_larger_model_takes_more_memory(job: TrialJob, tmp_path: Path) -> None:
    large = models.cnn(tmp_path / "large.onnx", width=128)
    found = measured(changed(job, candidate_path=str(large), rounds=3))
    weights_mib = large.stat().st_size / 2**20
    assert found.peak_memory_mib > found.original_peak_memory_mib + weights_mib / 2


def test_the_probe_holds_inputs_and_the_candidates_own_answers(
    job: TrialJob, tmp_path: Path
) -> None:
    measured(changed(job, probe_path=str(tmp_path / "probe.npz")))
    session = runtime.session(Path(job.candidate_path))
    with samples.open_samples(tmp_path / "probe.npz", runtime.inputs(session)) as probe:
        assert len(probe) == 4
        for index in range(4):
            got = runtime.run(session, probe.sample(index))
            assert np.allclose(got["logits"], probe.expected(index)["logits"], atol=1e-5)


def test_a_probe_of_one_sample_is_readable_too(job: TrialJob, tmp_path: Path) -> None:
    measured(changed(job, sample_indices=(0,), probe_path=str(tmp_path / "probe.npz")))
    specs = runtime.inputs(runtime.session(Path(job.candidate_path)))
    with samples.open_samples(tmp_path / "probe.npz", specs) as probe:
        assert probe.expected(0)["logits"].shape == (1, 10)


def test_threads_and_arena_are_as_asked(job: TrialJob) -> None:
    found = measured(changed(job, runtime=Runtime(threads=2, arena=False)))
    assert found.threads == 2


def test_time_bounds_the_rounds_but_three_are_run(job: TrialJob) -> None:
    found = measured(changed(job, seconds=0.001, rounds=10_000))
    assert 3 <= found.rounds < 8
    assert found.samples >= 1


@pytest.mark.parametrize(
    ("which", "part"),
    [("candidate_path", 0.0), ("candidate_path", 0.98), ("original_path", 0.5)],
)
def test_a_truncated_model_is_a_bad_model(job: TrialJob, which: str, part: float) -> None:
    path = Path(getattr(job, which))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    found = failed(job)
    assert found.kind == "bad-model"
    assert found.message.startswith(f"cannot load {path.name}: ")


def test_a_candidate_that_is_not_there_is_a_bad_model(job: TrialJob) -> None:
    Path(job.candidate_path).unlink()
    found = failed(job)
    assert found.kind == "bad-model"
    assert found.message == "cannot use model candidate.onnx: no such file"


def test_a_candidate_of_other_inputs_is_refused(job: TrialJob, tmp_path: Path) -> None:
    other = models.mlp(tmp_path / "mlp.onnx")
    assert failed(changed(job, candidate_path=str(other))).kind == "bad-inputs"


def test_inputs_that_cannot_be_read_are_bad_inputs(job: TrialJob) -> None:
    Path(job.inputs_path).write_bytes(b"PK and nothing else")
    assert failed(job).kind == "bad-inputs"
    found = failed(changed(job, inputs_path="/nowhere.npz"))
    assert "No such file" in found.message


def test_an_index_beyond_the_samples_is_refused(job: TrialJob) -> None:
    assert (
        "cannot use sample 99: there are 12" in failed(changed(job, sample_indices=(99,))).message
    )


def test_a_trial_that_is_not_json_says_so() -> None:
    with parent.start("compression.trial") as trial:
        out, _ = trial.communicate(b"nonsense\n", timeout=30)
    assert Failed.model_validate_json(out).message.startswith("cannot read the trial")


def test_ends_when_its_parent_is_gone(job: TrialJob) -> None:
    with parent.start("compression.trial") as trial:
        assert trial.stdin is not None
        trial.stdin.write(changed(job, seconds=600, rounds=10_000).to_json() + b"\n")
        trial.stdin.close()
        assert trial.wait(30) == 1


def test_stdout_carries_nothing_but_the_answer(job: TrialJob) -> None:
    with parent.start("compression.trial") as trial:
        assert trial.stdin is not None
        assert trial.stdout is not None
        trial.stdin.write(job.to_json() + b"\n")
        trial.stdin.flush()
        Measurement.model_validate_json(trial.stdout.readline())
        trial.stdin.close()
        assert trial.stdout.read() == b""
        with contextlib.suppress(subprocess.TimeoutExpired):
            trial.wait(10)
        assert trial.returncode == 0
