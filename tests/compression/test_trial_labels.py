"""Labels and guesses through a real trial."""

from pathlib import Path

import numpy as np
import pytest

from compression import report, runtime
from compression.findings import Measurement
from compression.job import OutputSpec, TrialJob
from tests.compression import parent
from tests.simulators import models


@pytest.fixture
def job(tmp_path: Path) -> TrialJob:
    """Two networks; the labels are what the original answers, but for the first two."""
    path = models.cnn(tmp_path / "original.onnx")
    rows = models.sample_inputs(path, 10)
    session = runtime.session(path)
    answers = [
        int(runtime.run(session, {"image": row[None]})["logits"].argmax()) for row in rows["image"]
    ]
    labels = np.array(answers)
    labels[:2] = (labels[:2] + 1) % 10
    np.savez(tmp_path / "inputs.npz", **rows, **{"::labels": labels})
    return TrialJob(
        candidate_path=str(models.cnn(tmp_path / "candidate.onnx", seed=1)),
        original_path=str(path),
        inputs_path=str(tmp_path / "inputs.npz"),
        outputs=(OutputSpec(name="logits", kind="logits"),),
        rounds=3,
        seconds=1,
    )


def measured(job: TrialJob, **fields) -> Measurement:
    found = parent.run_trial(job.model_copy(update=fields))
    assert isinstance(found, Measurement), found
    return found


def test_labels_give_the_users_own_metric_of_both_models(job: TrialJob) -> None:
    measurement = measured(job)
    (found,) = measurement.labelled
    assert (found.metric, found.output, found.samples) == ("accuracy", "logits", 10)
    assert found.original == pytest.approx(0.8)
    assert found.candidate < 0.8
    assert found.low <= found.candidate - found.original <= found.high
    text = report.measurement(measurement)
    assert "accuracy by labels 0." in text
    assert "original 0.8000 (difference -0." in text


def test_labels_go_with_their_samples(job: TrialJob) -> None:
    (found,) = measured(job, sample_indices=(1, 5, 9)).labelled
    assert found.original == pytest.approx(2 / 3)


def test_without_labels_there_is_no_metric(job: TrialJob, tmp_path: Path) -> None:
    rows = np.load(job.inputs_path)
    np.savez(tmp_path / "plain.npz", image=rows["image"])
    found = measured(job, inputs_path=str(tmp_path / "plain.npz"))
    assert found.labelled == ()
    assert not found.agreement.guessed


def test_what_was_guessed_at_publishing_stays_a_guess(job: TrialJob) -> None:
    guessed = OutputSpec(name="logits", kind="logits", guessed=True)
    assert measured(job, outputs=(guessed,)).agreement.guessed
