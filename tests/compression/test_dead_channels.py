"""Channels that nothing makes or nothing reads go, and the answers stay what they were."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compression import channels, runtime
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.passes import dead_channels
from compression.passes.dead_channels import Settings
from compression.pruning import dead
from compression.regular import equality
from tests.compression import channel_graphs as small
from tests.compression.variants import a_pass, images, made

ROWS = images(3, size=8)


def chain(change: Any, *, middle: str = "Relu") -> onnx.ModelProto:
    """Conv of twelve channels, a function, Conv of four; `change` alters the constants."""
    b = small.builder()
    first = b.node("Conv", "x", b.weights(12, 3, 3, 3), b.weights(12), pads=[1] * 4)
    second = b.node("Conv", b.node(middle, first), b.weights(4, 12, 1, 1), b.weights(4))
    model = small.finished(b, second)
    held = {at: numpy_helper.to_array(one).copy() for at, one in enumerate(b.initializers)}
    change(*held.values())
    for at, tensor in enumerate(model.graph.initializer):
        tensor.CopyFrom(numpy_helper.from_array(held[at], tensor.name))
    return model


def widths(model: onnx.ModelProto) -> list[int]:
    return [one.dims[0] for one in model.graph.initializer if len(one.dims) == 4]


def unmade(first: np.ndarray, bias: np.ndarray, second: np.ndarray, last: np.ndarray) -> None:
    first[[1, 5]] *= 1e-6
    bias[[1, 5]] *= 1e-6


def unread(first: np.ndarray, bias: np.ndarray, second: np.ndarray, last: np.ndarray) -> None:
    second[:, [0, 2, 3]] = 0


def constant(first: np.ndarray, bias: np.ndarray, second: np.ndarray, last: np.ndarray) -> None:
    first[1] = 0  # its bias makes it a constant, which others add up


def both(*held: np.ndarray) -> None:
    unmade(*held)
    unread(*held)


def gap(a: onnx.ModelProto, b: onnx.ModelProto) -> float:
    sessions = [runtime.session(one) for one in (a, b)]
    return max(equality.difference(*(runtime.run(one, row) for one in sessions)) for row in ROWS)


@pytest.mark.parametrize("middle", ["Relu", "Sigmoid"])  # the second is .5 of nothing
@pytest.mark.parametrize(("change", "left"), [(unmade, 10), (unread, 9), (both, 7)])
def test_what_nothing_makes_or_nothing_reads_goes(change: Any, left: int, middle: str) -> None:
    model = chain(change, middle=middle)
    how = Settings(multiple=1)
    found = dead_channels.apply(model, how, evidence=Evidence(lambda: iter(ROWS)))
    assert widths(found) == [left, 4]
    assert gap(model, found) < 1e-5


def test_a_constant_channel_is_alive() -> None:
    with pytest.raises(BadModel, match=r"of 12 none has weights below 0\.0001 of the largest"):
        dead_channels.apply(chain(constant), Settings(), evidence=Evidence(lambda: iter(ROWS)))


def test_of_a_layer_that_is_dead_as_a_whole_one_channel_stays() -> None:
    def nothing(*held: np.ndarray) -> None:
        held[0][:] = held[1][:] = 0

    model = chain(nothing)
    found = dead_channels.apply(model, Settings(multiple=1))
    assert widths(found) == [1, 4]
    assert gap(model, found) < 1e-6


def test_what_changes_the_answers_is_refused_with_how_much() -> None:
    def small_but_felt(first: np.ndarray, bias: np.ndarray, *others: np.ndarray) -> None:
        first[3] *= 0.1
        bias[3] *= 0.1

    with pytest.raises(BadModel, match=r"differ by [0-9.e-]+ of the largest, and 0.001 is allowed"):
        dead_channels.apply(
            chain(small_but_felt),
            Settings(below=0.3, multiple=1),
            evidence=Evidence(lambda: iter(ROWS)),
        )


def test_a_recipe_may_take_them_out_before_it_rounds() -> None:
    model = chain(unread)
    found = made(model, ROWS, a_pass("dead_channels", multiple=3), a_pass("quantization"))
    held = {tuple(one.dims) for one in found.graph.initializer}
    assert (9, 3, 3, 3) in held
    with pytest.raises(BadModel, match="cut first"):
        made(model, ROWS, a_pass("quantization"), a_pass("dead_channels"))


@pytest.mark.parametrize(("multiple", "left"), [(1, 7), (2, 8), (4, 8), (8, 8), (5, 10)])
def test_what_is_left_is_a_multiple_of_channels(multiple: int, left: int) -> None:
    model = chain(both)
    found = dead_channels.apply(model, Settings(multiple=multiple))
    assert widths(found) == [left, 4]
    assert gap(model, found) < 1e-5
    with pytest.raises(BadModel, match="too few for a multiple of 12"):
        dead_channels.apply(model, Settings(multiple=12))


def test_no_unit_of_a_live_model_is_dead() -> None:
    model = chain(lambda *_: None)
    assert dead.keep(model, channels.find(model, sample=ROWS[0]), below=1e-4) == {}
