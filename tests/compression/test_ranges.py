"""What calibration streams: ranges of the float tensors, in memory that does not grow."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compression import graph, statistics
from compression.errors import BadInputs
from tests.simulators import models


def test_ranges_are_those_of_the_tensors(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    model = graph.regular(path)
    rows = [{"x": row[None]} for row in models.sample_inputs(path, 9)["x"]]
    found = statistics.ranges(model, iter(rows), count=9)
    every = np.concatenate([row["x"] for row in rows])
    assert found["x"].low == pytest.approx(float(every.min()))
    assert found["x"].high == pytest.approx(float(every.max()))
    assert found["x"].mean_high == pytest.approx(float(every.max(axis=1).mean()), rel=1e-5)
    weights = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in model.graph.node for name in node.output}
    assert set(found) == made | {"x"}
    assert not weights & set(found)


def test_what_statistics_hold_does_not_grow_with_the_samples() -> None:
    seen = statistics.Accumulator([f"t{index}" for index in range(50)])
    before = seen.state_bytes
    for index in range(2000):
        seen.add(np.full(50, -float(index)), np.full(50, float(index)))
    assert seen.state_bytes == before == 4 * 50 * 8
    assert Counter(len(value) for value in vars(seen).values() if hasattr(value, "__len__")) == {
        50: 5
    }
    assert seen.ranges()["t7"] == statistics.Range(-1999, 1999, -999.5, 999.5)


def test_calibration_without_samples_is_refused(tmp_path: Path) -> None:
    model = graph.regular(models.mlp(tmp_path / "m.onnx"))
    with pytest.raises(BadInputs, match="there are no samples"):
        statistics.ranges(model, [], count=0)
