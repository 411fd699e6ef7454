"""A training stays within its work memory: in as few parts as will do, and with the same values."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compression import graph
from compression.recovery import aims, memory
from compression.recovery.student import Student, Weights
from tests.fixtures import models, renders

FEEDS = {"image": renders.digits(2, seed=9)[0]}


@pytest.fixture(autouse=True)
def _as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process does with freed memory stays: other tests would take longer."""
    monkeypatch.setattr(memory, "_give_back_at_once", lambda: None)


@pytest.fixture(scope="module")
def original() -> onnx.ModelProto:
    return graph.regular(models.svhn().onnx)


def student(model: onnx.ModelProto) -> Student:
    return Student(model, aims=aims.of_outputs(model, model, ()), features=())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.lists(st.integers(0, 100), min_size=1, max_size=60), count=st.integers(1, 8))
def test_parts_cover_all_nodes_once_and_none_is_much_above_its_share(
    kept: list[int], count: int
) -> None:
    bounds = memory.divided(kept, count)
    assert (bounds[0], bounds[-1]) == (0, len(kept))
    assert list(bounds) == sorted(set(bounds))
    assert len(bounds) <= count + 1
    largest = max(sum(kept[a:b]) for a, b in pairwise(bounds))
    assert largest <= sum(kept) / count + max(kept)


def test_what_fits_is_computed_at_once_and_in_batches(original: onnx.ModelProto) -> None:
    roomy = student(original)
    assert memory.fit(roomy, FEEDS, most=16, bound=1e12) == 16
    assert roomy.net.bounds == (0, len(roomy.net.nodes))


def test_what_does_not_fit_is_computed_in_parts(original: onnx.ModelProto) -> None:
    tight = student(original)
    kept = memory.kept_bytes(tight, FEEDS)
    bound = memory.BACKWARD * 0.6 * sum(kept)
    assert memory.fit(tight, FEEDS, most=16, bound=bound) == 1
    parts = [sum(kept[a:b]) for a, b in pairwise(tight.net.bounds)]
    assert len(parts) >= 2
    assert memory.BACKWARD * max(parts) <= bound
    assert sum(parts) == sum(kept)


def test_no_bound_is_too_small_to_train_at_all(original: onnx.ModelProto) -> None:
    least = student(original)
    assert memory.fit(least, FEEDS, most=16, bound=0.0) == 1
    answers = {aim.teacher: np.ones((2, 10), np.float32) for aim in least.aims}
    least.loss(FEEDS, answers, Weights(1.0, 0.0)).backward()
    assert all(leaf.tensor.grad is not None for leaf in least.parameters.leaves.values())
