"""What must be cut together, in which units, and why the rest of a graph stays."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from compression import channels
from compression.errors import BadModel
from tests.compression import channel_graphs as small
from tests.compression.generated import Builder

SIZES = {
    "chain": [(6, 1)],
    "residual": [(5, 1), (6, 1)],
    "concat": [(4, 1), (5, 1)],
    "split": [(4, 1), (6, 1), (6, 1)],
    "halves": [(6, 2)],
    "counted_back": [(3, 1)] * 4 + [(4, 1), (5, 1)],
    "depthwise": [(6, 1)],
    "grouped": [(2, 4), (3, 4)],
    "transposed": [(3, 1), (4, 2), (6, 1)],
    "excited": [(4, 1), (6, 1)],
    "shuffled": [(2, 3), (2, 9)],
    "blocks": [(2, 4), (3, 4)],
    "flattened": [(6, 1)],
    "padded": [(6, 1)],
    "attention": [(4, 3), (10, 1)],
    "fused": [(4, 6)],
    "recurrent": [(4, 8), (5, 6), (8, 1)],
    "leaking": [(6, 1)] * 4,
    "bordered": [(6, 1)],
}
"""By graph, the width and the size of a unit of each group."""


@pytest.mark.parametrize("name", SIZES)
def test_groups_have_as_many_units_as_can_be_cut_alone(name: str) -> None:
    found = channels.find(small.GRAPHS[name]())
    assert sorted((group.width, group.unit_size) for group in found.groups) == SIZES[name]


def group_of(found: channels.ChannelMap, name: str) -> channels.Group:
    return next(g for g in found.groups if any(slot.initializer == name for slot in g.producers))


def test_what_is_added_is_made_and_cut_together() -> None:
    model = small.residual()
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    group = group_of(channels.find(model), convs[0].input[1])
    assert {s.initializer for s in group.producers} == {convs[0].input[1], convs[2].input[1]}
    assert {s.initializer for s in group.consumers} == {convs[1].input[1], convs[3].input[1]}
    assert {s.tensor for s in group.consumers} == {convs[1].input[0], convs[3].input[0]}


def test_behind_a_concat_units_lie_at_their_offset() -> None:
    model = small.concat()
    first, second, last = (node for node in model.graph.node if node.op_type == "Conv")
    found = channels.find(model)
    (one,) = group_of(found, first.input[1]).consumers
    (other,) = group_of(found, second.input[1]).consumers
    assert one.units.tolist() == [0, 1, 2, 3, *[-1] * 8]
    assert other.units.tolist() == [*[-1] * 7, 0, 1, 2, 3, 4]
    assert (one.initializer, one.node) == (last.input[1], last.output[0])


def test_behind_a_flatten_a_unit_is_every_position_of_its_channel() -> None:
    found = channels.find(small.flattened())
    (slot,) = found.groups[0].consumers
    assert slot.units.tolist() == np.repeat(np.arange(6), 25).tolist()


def test_shares_count_what_lies_along_some_axis_of_a_group() -> None:
    found = channels.find(small.concat())
    convs = 64 * 9 * 3 * (4 + 5)  # products of the two Convs that are cut along their outputs
    head = 64 * 4 * 12
    assert found.macs == convs + head
    assert found.macs_share == pytest.approx((convs + head * 9 / 12) / found.macs)
    weights = 9 * 3 * (4 + 5) + 4 + 5
    total = weights + 4 * 12 + 4
    assert found.parameters_share == pytest.approx((weights + 4 * 9) / total)


def test_a_unit_costs_what_its_weights_cost() -> None:
    (group,) = channels.find(small.chain()).groups
    assert group.macs_per_unit == 64 * 9 * 3 + 64 * 4
    assert group.parameters_per_unit == 9 * 3 + 1 + 4


def test_two_looks_at_a_model_find_the_same() -> None:
    one, other = (channels.find(small.attention()) for _ in range(2))
    assert [group.id for group in one.groups] == [group.id for group in other.groups]
    for a, b in zip(one.groups, other.groups, strict=True):
        assert [s.units.tolist() for s in a.slots] == [s.units.tolist() for s in b.slots]


def opaque(b: Builder, x: str) -> str:
    return b.node("CumSum", b.node("Einsum", x, equation="nchw->nchw"), b.ints(2))


def normed(b: Builder, x: str) -> str:
    turned = b.node("Transpose", x, perm=[0, 2, 3, 1])
    normed = b.node("LayerNormalization", turned, b.weights(6))
    return b.node("Transpose", normed, perm=[0, 3, 1, 2])


def counted(b: Builder, x: str) -> str:
    """Divided by the number of channels, which would be another one."""
    count = b.node("Gather", b.node("Shape", x), b.ints(1))
    number = b.node("Cast", count, to=onnx.TensorProto.FLOAT)
    return b.node("Div", x, number)


def dynamic(b: Builder, x: str) -> str:
    """Weights that are computed."""
    weight = b.node("Reshape", b.node("ReduceMean", x, axes=[0, 2, 3]), b.ints(1, 6, 1, 1))
    return b.node("Conv", x, weight)


REASONS: dict[str, tuple[Callable[[Builder, str], str], str]] = {
    "an operator without a rule": (opaque, "is not followed (Einsum)"),
    "a body that reads it": (small.branch, "is captured by a body"),
    "a norm over channels": (normed, "is normalised over channels (LayerNormalization)"),
    "a Softmax over channels": (
        lambda b, x: b.node("Softmax", x, axis=1),
        "is normalised over channels (Softmax)",
    ),
    "a sum over channels": (
        lambda b, x: b.node("ReduceMax", x, axes=[1]),
        "is summed up over channels (ReduceMax)",
    ),
    "a width that is computed with": (counted, "is counted for a computation (Div)"),
    "weights that are computed": (dynamic, "meets weights that are not constant (Conv)"),
    "an input beside it": (lambda b, x: b.node("Add", x, "more"), "meets values of a graph input"),
    "an index that picks one": (
        lambda b, x: b.node("Gather", x, b.constant(1, np.int64), axis=1),
        "is picked from (Gather)",
    ),
    "the output": (lambda b, x: b.node("Relu", x), "reaches a graph output"),
}


@pytest.mark.parametrize("what", REASONS)
def test_what_is_not_understood_stays_and_says_why(what: str) -> None:
    b = small.builder()
    x = small.conv(b, "x", 3, 6)
    after, reason = REASONS[what]
    model = small.finished(b, after(b, x), given={"more": ("N", 6, 8, 8)})
    found = channels.find(model)
    assert not found.groups
    assert found.macs_share == 0
    assert [one.count for one in found.frozen if one.initializer == model.graph.node[0].input[1]]
    assert reason in found.frozen[0].reason


def test_weights_that_are_read_otherwise_too_stay() -> None:
    b = small.builder()
    x = small.conv(b, "x", 3, 6)
    weight = b.weights(4, 6, 1, 1)
    y = b.node("Conv", x, weight)
    found = channels.find(small.finished(b, b.node("Add", y, b.node("ReduceSum", weight))))
    assert not found.groups
    assert {one.reason for one in found.frozen} == {
        "has weights that others read otherwise", "reaches a graph output"
    }  # fmt: skip


def test_a_state_that_is_given_stays() -> None:
    b = small.builder()
    weights = [b.weights(1, 16, 6), b.weights(1, 16, 4)]
    y = b.node("LSTM", "x", *weights, "", "", "h", "c", outputs=3, hidden_size=4)
    states = {"h": (1, 1, 4), "c": (1, 1, 4)}
    model = small.finished(b, b.node("Squeeze", y, b.ints(1)), shape=("T", 1, 6), given=states)
    found = channels.find(model)
    assert not found.groups
    assert found.frozen[0].reason == "is a state that somebody gives (LSTM)"


def test_only_what_holds_at_two_shapes_is_a_group() -> None:
    """At 4 x 4 a Reshape of [C, H, W] to [H * W, C] looks like one that keeps channels whole."""
    b = small.builder()
    x = small.conv(b, "x", 3, 16)
    mixed = b.node("Reshape", x, b.ints(0, -1, 16))
    model = small.finished(b, small.linear(b, mixed, 16, 4), shape=("N", 3, "S", "S"))
    sample = {"x": np.ones((1, 3, 4, 4), np.float32)}
    assert not channels.find(model, sample=sample).groups


def test_a_model_that_does_not_run_is_refused() -> None:
    with pytest.raises(BadModel, match="cannot run"):
        channels.find(small.chain(), sample={"x": np.ones((1, 5, 8, 8), np.float32)})
