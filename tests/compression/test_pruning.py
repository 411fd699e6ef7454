"""Which units go, and how many of each group: the order, the count of products, the allocation."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compression import channels
from compression.errors import BadModel
from compression.pruning import allocating, costs, fading, ordering, surgery
from compression.pruning.ordering import Reader
from tests.compression import channel_graphs as small
from tests.compression.masked import random_units

Floats = NDArray[np.float64]


def reader(rows: Floats, weights: Floats, units: Any = None) -> Reader:
    centred = rows - rows.mean(0)
    found = np.arange(rows.shape[1]) if units is None else np.asarray(units)
    return Reader(centred.T @ centred / len(rows), weights, found)


def residual(rows: Floats, weights: Floats, gone: list[int]) -> float:
    """What is lost of `rows @ weights` where the others stand in for `gone` as well as they can."""
    centred = rows - rows.mean(0)
    stays = [at for at in range(rows.shape[1]) if at not in gone]
    fitted, *_ = np.linalg.lstsq(centred[:, stays], centred @ weights, rcond=None)
    return float(np.square(centred @ weights - centred[:, stays] @ fitted).mean(0).sum())


def test_dead_units_and_copies_go_first() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 8))
    rows[:, 3] = 0.7  # never changes: a bias stands in for it
    rows[:, 6] = 2 * rows[:, 1]
    found = ordering.by_activations(8, [reader(rows, rng.normal(size=(8, 5)))])
    assert found is not None
    assert found.units[0] == 3
    assert found.units[1] in {1, 6}
    assert found.lost[1] < 0.02 < found.lost[2] - found.lost[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(1, 6))
def test_the_first_that_goes_costs_least_of_all(seed: int, width: int, outputs: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(200, width)) @ rng.normal(size=(width, width))
    weights = rng.normal(size=(width, outputs))
    found = ordering.by_activations(width, [reader(rows, weights)])
    assert found is not None
    costs_alone = [residual(rows, weights, [unit]) for unit in range(width)]
    energy = float(np.square((rows - rows.mean(0)) @ weights).mean(0).sum())
    assert costs_alone[int(found.units[0])] <= min(costs_alone) + 0.02 * energy
    assert sorted(found.units.tolist()) == list(range(width))
    assert (np.diff(found.lost) >= 0).all()


def test_units_of_several_inputs_go_as_a_whole() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(300, 6))
    rows[:, [4, 5]] = rows[:, [0, 1]] @ rng.normal(size=(2, 2))  # the third says the first again
    units = [0, 0, 1, 1, 2, 2]
    found = ordering.by_activations(3, [reader(rows, rng.normal(size=(6, 4)), units)])
    assert found is not None
    assert found.units[0] in {0, 2}
    assert found.units[-1] in {0, 2} or found.units[1] == 1


def test_every_reader_counts_alike_however_large_its_numbers() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(500, 4))
    one, other = np.eye(4)[:, :1], np.eye(4)[:, 3:]  # each reads one unit alone
    for scale in (1e-4, 1.0, 1e6):
        found = ordering.by_activations(4, [reader(rows, one), reader(rows, other * scale)])
        assert found is not None
        assert set(found.kept(2)) == {0, 3}


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_readers_that_say_nothing_leave_the_order_to_magnitude(bad: float) -> None:
    gram = np.full((4, 4), bad)
    assert ordering.by_activations(4, [Reader(gram, np.ones((4, 2)), np.arange(4))]) is None
    assert ordering.by_activations(4, []) is None


def test_by_magnitude_small_weights_go_first() -> None:
    model = small.chain()
    (group,) = channels.find(model).groups
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    made = group.producers[0]
    norms = np.square(np.moveaxis(weights[made.initializer], made.axis, 0).reshape(6, -1)).sum(1)
    found = ordering.by_magnitude(group, weights)
    assert found.units.tolist() == np.argsort(norms).tolist()
    assert found.lost[-1] == pytest.approx(1)


@pytest.mark.parametrize("name", small.GRAPHS)
def test_the_count_of_products_is_that_of_the_model_when_cut(name: str) -> None:
    model = small.GRAPHS[name]()
    found = channels.find(model)
    counts = costs.Costs(found)
    assert counts.left([group.width for group in found.groups]) == pytest.approx(1)
    keep = random_units(found, share=0.5, seed=1)
    left = counts.left([len(keep[group.id]) for group in found.groups])
    cut = channels.find(surgery.cut(model, found, keep))
    assert left == pytest.approx(cut.macs / found.macs, rel=1e-6)


def test_groups_that_lose_little_are_cut_and_others_are_left() -> None:
    model = small.residual()
    found = channels.find(model)
    losses = {group.id: (1.0, 2.0, 3.0) for group in found.groups}
    free = found.groups[-1].id
    losses[free] = (0.0, 0.0, 0.0)
    first = allocating.widths(found, losses, (0.25, 0.5, 0.75), macs=0.99)
    assert set(first) == {free}
    lean = allocating.widths(found, losses, (0.25, 0.5, 0.75), macs=0.5)
    widths = [lean.get(group.id, group.width) for group in found.groups]
    assert costs.Costs(found).left(widths) <= 0.5


def test_a_share_that_cannot_be_reached_is_refused_with_the_least() -> None:
    found = channels.find(small.residual())
    losses = {group.id: (1.0, 2.0, 3.0) for group in found.groups}
    with pytest.raises(BadModel, match=r"cannot cut to 0\.01 .* 0\.\d\d are left"):
        allocating.widths(found, losses, (0.25, 0.5, 0.75), macs=0.01)


def test_wide_groups_keep_multiples_of_eight_channels() -> None:
    b = small.builder()
    hidden = b.node("Relu", small.conv(b, "x", 3, 44))
    (group,) = channels.find(small.finished(b, small.head(b, hidden, 44))).groups
    assert costs.steps(group) == (44, 40, 32, 24, 16, 8)


def test_a_loss_counts_less_the_more_layers_lie_behind() -> None:
    b = small.builder()
    x = "x"
    for before in (3, 8, 8):
        x = b.node("Relu", small.conv(b, x, before, 8))
    model = small.finished(b, small.head(b, x, 8))
    found = channels.find(model)
    order = ordering.Order(np.arange(8), np.linspace(0.1, 0.8, 8))
    same = {group.id: order for group in found.groups}
    expected = fading.losses(model, found, same, without={found.groups[1].id})
    first, last = expected[found.groups[0].id], expected[found.groups[2].id]
    assert len(expected) == 2
    assert first == pytest.approx([fading.FADE**2 * lost for lost in last])
    assert (np.diff(first) >= 0).all()


def test_a_loss_counts_for_every_reader() -> None:
    b = small.builder()
    x = b.node("Relu", small.conv(b, "x", 3, 8))
    y = b.node("Add", small.conv(b, x, 8, 4), small.conv(b, x, 8, 4))
    found = channels.find(model := small.finished(b, y))
    (group,) = [one for one in found.groups if one.width == 8]
    order = ordering.Order(np.arange(8), np.linspace(0.1, 0.8, 8))
    lost = fading.losses(model, found, dict.fromkeys((g.id for g in found.groups), order))
    assert lost[group.id][-1] == pytest.approx(2 * 0.7)
