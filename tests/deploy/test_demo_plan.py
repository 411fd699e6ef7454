"""What a run shows, and what its table makes of what was seen."""

from pathlib import Path

import numpy as np
import pytest

from agent.errors import BadInput
from agent.protocol.events import Event, Live
from compression.job import Budget, OutputSpec
from deploy.demo import findings, plan, report
from deploy.demo.traffic import Answer
from tests.deploy.test_demo_figures import SHA_A, SHA_B, batch, measurement, part
from tests.simulators import models

LOGITS = (OutputSpec(name="y", kind="logits"),)


def files(folder: Path, count: int = 20) -> tuple[Path, Path, Path]:
    """A model, inputs to calibrate with, and labelled inputs to judge by."""
    model = models.mlp(folder / "net.onnx")
    calibration, evaluation = folder / "calibration.npz", folder / "evaluation.npz"
    np.savez(calibration, **models.sample_inputs(model, count, 1))
    labels = np.arange(count) % 4
    np.savez(evaluation, **models.sample_inputs(model, count, 2), **{"::labels": labels})
    return model, calibration, evaluation


def own(folder: Path, *, evaluated: bool = True) -> plan.Plan:
    model, calibration, evaluation = files(folder)
    return plan.own(
        model,
        calibration=calibration,
        evaluation=evaluation if evaluated else None,
        outputs=LOGITS,
        budget=Budget(size_ratio=0.5),
    )


def answers(*classes: int, latency_ms: float) -> list[Answer]:
    return [Answer({"y": np.eye(4, dtype=np.float32)[[number]]}, latency_ms) for number in classes]


def test_judges_by_the_evaluation_set_and_its_labels(tmp_path: Path) -> None:
    made = own(tmp_path)
    assert (made.name, made.reference) == ("net", "net-original")
    assert len(made.samples) == 20
    assert made.samples[0]["x"].shape == (1, 8)
    assert made.budget == Budget(size_ratio=0.5, min_agreement=0.98)
    assert made.right is not None
    assert made.right([0, 1, 2, 3, 1] + [0] * 15)[:5] == [True, True, True, True, False]


def test_says_so_when_it_must_judge_by_what_calibrates(tmp_path: Path) -> None:
    made = own(tmp_path, evaluated=False)
    assert made.right is None
    assert any("the very ones that calibrate" in told for told in made.told)


def test_inputs_that_do_not_fit_are_refused_before_anything_starts(tmp_path: Path) -> None:
    model, calibration, _ = files(tmp_path)
    np.savez(calibration, other=np.zeros((3, 8), np.float32))
    with pytest.raises(BadInput, match="'other' is no input of the model"):
        plan.own(model, calibration=calibration, evaluation=None, outputs=(), budget=Budget())


def test_a_name_that_no_topic_can_hold_becomes_model(tmp_path: Path) -> None:
    model, calibration, _ = files(tmp_path)
    odd = model.rename(tmp_path / "ein Modell #1.onnx")
    made = plan.own(odd, calibration=calibration, evaluation=None, outputs=LOGITS, budget=Budget())
    assert made.name == "model"


def swapped(sha256: str, **figures: object) -> Event:
    return Event(
        device="demo", at_s=0, kind="swapped", model="net", figures={"sha256": sha256, **figures}
    )


def a_report(folder: Path, events: list[Event]) -> report.Report:
    made = own(folder)
    live = [
        Live(name="net-original", version=1, state="live", sha256=SHA_A, variant="original"),
        Live(name="net", version=1, state="live", sha256=SHA_B, variant="int8"),
    ]
    labels = [number % 4 for number in range(20)]
    found = {
        "net-original": answers(*labels, latency_ms=2.0),
        "net": answers(*labels[:19], 0, latency_ms=1.0),
    }
    telemetry = [
        batch(1, part(SHA_B, 20).model_copy(update={"name": "net"})),
        batch(2, part(SHA_A, 20).model_copy(update={"name": "net-original"})),
    ]
    return findings.report(made, live, found, events, telemetry)


def test_the_table_holds_the_trials_memory_and_what_traffic_and_telemetry_showed(
    tmp_path: Path,
) -> None:
    measured = measurement().model_dump()
    original = measurement().model_copy(update={"peak_memory_mib": 17.0}).model_dump()
    events = [swapped(SHA_A, measurement=original), swapped(SHA_B, measurement=measured)]
    made = a_report(tmp_path, events)
    assert made.original.memory_mib == 17.0
    assert made.variant.memory_mib == 8.0
    assert made.variant.size_bytes == 1_000_000
    assert made.agreement is not None
    assert made.accuracy is not None
    assert (made.agreement.hits, made.agreement.count) == (19, 20)
    assert [share.hits for share in made.accuracy] == [20, 19]
    assert made.variant.served.requests == made.original.served.requests == 20
    notes = " ".join(made.notes)
    for words in ("20 samples", "spread by 2.0 %", "100 held-out samples", "Energy: by hand."):
        assert words in notes


def test_without_the_originals_trial_its_memory_is_the_one_beside_the_variant(
    tmp_path: Path,
) -> None:
    made = a_report(tmp_path, [swapped(SHA_B, measurement=measurement().model_dump())])
    assert made.original.memory_mib == 16.0


def test_telemetry_is_complete_when_every_model_has_reported_all_its_requests() -> None:
    live = [Live(name="m", version=1, state="live", sha256=sha) for sha in (SHA_A, SHA_B)]
    first = batch(1, part(SHA_A, 10), part(SHA_B, 9))
    assert not findings.all_reported([first], live, least=10)
    assert findings.all_reported([first, batch(2, part(SHA_B, 1))], live, least=10)


def test_a_budget_is_told_in_words() -> None:
    assert findings.budget_text(Budget(size_mib=0.85)) == "size_mib 0.85"
    assert findings.budget_text(Budget()) == "the device's own"
