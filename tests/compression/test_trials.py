"""How long the next trial will take is told by those before, not by how long it may."""

from pathlib import Path

import numpy as np
import pytest

from compression.calibration.material import Material
from compression.choosing import trials
from compression.choosing.shelf import Shelf
from compression.choosing.trials import Trials
from compression.job import CompressJob, TrialJob
from compression.stream import TrialAnswer
from tests.compression.test_ladder import DEVICE, measured
from tests.simulators import models


class Clock:
    """Seconds that pass while a trial runs."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now


class Parent:
    """Answers trials at once, by a clock on which each takes a given time."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds = clock, list(seconds)

    def trial(self, _: TrialJob) -> TrialAnswer:
        self.clock.now += self.seconds.pop(0)
        return TrialAnswer(measurement=measured())


def test_trials_are_expected_to_take_what_the_longest_has_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.mlp(tmp_path / "m.onnx")
    inputs = tmp_path / "x.npz"
    np.savez(inputs, **models.sample_inputs(model, 60))
    job = CompressJob(
        model_name="m", model_path=str(model), calibration_path=str(inputs),
        device_class=DEVICE, out_dir=str(tmp_path / "out"),
    )  # fmt: skip
    clock = Clock()
    monkeypatch.setattr(trials, "working", clock)
    found = Trials(
        job, Material.open(job, tmp_path), Shelf(tmp_path / "out"), Parent(clock, 2.0, 9.0, 4.0)
    )
    found.once_ms = 200.0
    count = len(Material.open(job, tmp_path).choosing)
    assert found.expected_s(count) == found.seconds(count) > 40
    for _ in range(3):
        found.choosing(model)
    assert found.expected_s(count) == trials.MARGIN * 9.0
    assert found.expected_s(count + 1) == found.seconds(count + 1)  # other inputs, not yet seen
