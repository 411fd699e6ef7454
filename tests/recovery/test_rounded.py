"""Models in QDQ form learn through their own rounding, and stay the same graph."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from compression import graph, runtime, statistics
from compression.calibration.evidence import Evidence
from compression.job import OutputSpec
from compression.passes import quantization, recovery
from compression.recovery.interpreter import Interpreter, tensors
from compression.recovery.judging import Judge
from compression.recovery.nodes import Node, read
from compression.recovery.operators import quantizing
from compression.recovery.optimizer import Adam
from compression.recovery.parameters import Kind, Parameters
from tests.fixtures import models, renders

OUTPUTS = (OutputSpec(name="logits", kind="logits"),)
IMAGES = renders.digits(300, seed=5)[0]


def feeds(count: int = len(IMAGES)) -> Iterator[dict[str, NDArray[np.float32]]]:
    return ({"image": one[np.newaxis]} for one in IMAGES[:count])


@pytest.fixture(scope="module")
def original() -> onnx.ModelProto:
    return graph.regular(models.svhn().onnx)


@pytest.fixture(scope="module")
def rounded(original: onnx.ModelProto) -> onnx.ModelProto:
    ranges = statistics.ranges(original, feeds(32), count=32, threads=1)
    wanted = quantization.Settings(weights="s8-7bit", operators=("*",))
    return quantization.apply(original, wanted, ranges=ranges)


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


def learning(model: onnx.ModelProto, original: onnx.ModelProto) -> Parameters:
    return Parameters(model, Interpreter(model).nodes, masters=arrays(original))


def test_weights_scales_and_biases_learn_and_zero_points_do_not(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    leaves = learning(rounded, original).leaves
    kinds = [leaf.kind for leaf in leaves.values()]
    layers = sum(node.op_type in {"Conv", "Gemm"} for node in original.graph.node)
    assert kinds.count(Kind.ROUNDED) == kinds.count(Kind.BIAS) == layers
    assert not any(name.endswith("zero_point") for leaf in leaves.values() for name in leaf.names)


def test_masters_begin_at_the_float_weights_and_round_to_what_was_there(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    held, floats = learning(rounded, original), arrays(original)
    written = arrays(held.write(rounded))
    for name, before in arrays(rounded).items():
        assert np.array_equal(written[name], before), name
    checked = 0
    for name, leaf in held.leaves.items():
        weights = floats.get(name.removesuffix("_quantized"))
        if leaf.kind is Kind.ROUNDED and weights is not None and weights.ndim == 4:
            scale = arrays(rounded)[name.replace("_quantized", "_scale")].reshape(-1, 1, 1, 1)
            off = np.abs(leaf.tensor.detach().numpy() - weights / scale)
            assert np.quantile(off, 0.99) < 1e-3
            checked += 1
    assert checked == 6


def test_what_a_pool_moves_keeps_one_scale_before_and_behind(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    held = learning(rounded, original)
    together = [leaf.names for leaf in held.leaves.values() if len(leaf.names) > 1]
    pools = [node.output[0] for node in original.graph.node if node.op_type == "MaxPool"]
    assert pools
    for pool in pools:
        assert any(f"{pool}_scale" in names for names in together)
    with torch.no_grad():
        for leaf in held.leaves.values():
            if leaf.kind is Kind.SCALE:
                leaf.tensor.add_(math.log(1.25))
    written = arrays(held.write(rounded))
    for names in together:
        assert all(np.array_equal(written[name], written[names[0]]) for name in names)


def test_a_bias_stays_on_the_grid_of_its_sums_when_scales_move(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    held = learning(rounded, original)
    with torch.no_grad():
        for leaf in held.leaves.values():
            if leaf.kind is Kind.SCALE:
                leaf.tensor.add_(math.log(2.0))
    before, after = arrays(rounded), arrays(held.write(rounded))
    biases = [name for name, values in before.items() if values.dtype == np.int32 and values.ndim]
    biases = [name for name in biases if name.endswith("_quantized")]
    assert biases
    for name in biases:
        scale = name.replace("_quantized", "_scale")
        assert np.allclose(after[scale], 4 * before[scale], rtol=1e-6)
        # The bias itself did not move: a quarter as many steps of four times the size.
        assert np.abs(after[name] - before[name] / 4).max() <= 0.5


def test_a_step_moves_all_channels_alike_however_fine_their_grids(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    held = learning(rounded, original)
    leaves = {name: leaf.tensor for name, leaf in held.leaves.items()}
    adam = Adam(leaves, held.leaves)
    before = {name: value.detach().numpy() for name, value in held.values().items()}
    for tensor in leaves.values():
        tensor.grad = torch.ones_like(tensor)
    adam.step(0.01)
    for name, leaf in held.leaves.items():
        moved = np.abs(leaf.value().detach().numpy() - before[name])
        if leaf.kind is Kind.SCALE:
            assert np.all(moved <= 0.01 * before[name])
        elif leaf.kind is Kind.BIAS:
            real, floats = moved * leaf.base.numpy(), leaf.tensor.detach().numpy()
            assert np.all(real <= 0.011 * max(0.01, float(np.sqrt(np.mean(floats**2)))))


def test_torch_promises_what_onnxruntime_computes(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    net, held = Interpreter(rounded), learning(rounded, original)
    deployed = runtime.session(rounded)
    gaps, powers = [], []
    for sample in feeds(20):
        with torch.no_grad():
            found = net.run(tensors(sample), held.values())["logits"].numpy()
        wanted = runtime.run(deployed, sample)["logits"]
        assert found.argmax() == wanted.argmax()
        gaps.append(np.square(found - wanted).mean())
        powers.append(np.square(wanted).mean())
    assert np.sqrt(np.sum(gaps) / np.sum(powers)) < 0.02


def crossing(at_once: bool) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    there: Node = read(onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), opset=17)
    back: Node = read(onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]), opset=17)

    def piece_by_piece(x: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        q = quantizing.OPERATORS["QuantizeLinear"](there, [x, s, z])
        return quantizing.OPERATORS["DequantizeLinear"](back, [q, s, z])

    return (lambda x, s, z: quantizing.crossed(there, [x, s, z])) if at_once else piece_by_piece


@pytest.mark.parametrize("at_once", [False, True])
def test_the_gradient_of_a_scale_is_that_of_learned_step_sizes(at_once: bool) -> None:
    across = crossing(at_once)
    scale = torch.tensor(0.1, requires_grad=True)
    zero = torch.tensor(3, dtype=torch.uint8)
    for one in torch.linspace(-3, 30, 200):
        scale.grad = None
        across(one, scale, zero).backward()
        v = float(one) / 0.1
        within = float(np.round(v)) - v  # Esser et al. 2020, equation 3
        wanted = -3.0 if np.round(v) + 3 < 0 else 252.0 if np.round(v) + 3 > 255 else within
        assert float(scale.grad) == pytest.approx(wanted, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99), scale=st.floats(1e-4, 10.0), zero=st.integers(0, 255),
    spread=st.floats(0.0, 1e4),
)  # fmt: skip
def test_to_integers_and_back_at_once_is_as_piece_by_piece(
    seed: int, scale: float, zero: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    values, weights = (torch.from_numpy(rng.standard_normal((3, 50), np.float32)) for _ in "ab")
    found = []
    for at_once in (False, True):
        x = (values * spread).requires_grad_()
        s = torch.tensor(scale, requires_grad=True)
        y = crossing(at_once)(x, s, torch.tensor(zero, dtype=torch.uint8))
        (y * weights).sum().backward()
        found.append((y.detach().numpy(), x.grad.numpy(), float(s.grad)))
    (y, of_x, of_s), (other_y, other_of_x, other_of_s) = found
    steps = np.abs(y - other_y) / np.float32(scale)
    assert steps.max() < 1.01  # a tie may fall either way
    same = steps < 0.01
    assert same.mean() > 0.98
    np.testing.assert_allclose(other_of_x[same], of_x[same], rtol=1e-5)
    assert other_of_s == pytest.approx(of_s, rel=1e-3, abs=300 * float((~same).sum()) + 0.05)


def test_weights_of_8_bits_that_were_spoiled_are_learned_anew_and_the_graph_stays(
    original: onnx.ModelProto, rounded: onnx.ModelProto
) -> None:
    spoiled = onnx.ModelProto()
    spoiled.CopyFrom(rounded)
    noise = np.random.default_rng(0)
    for tensor in spoiled.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8 and values.ndim == 4:
            values = (values + noise.normal(0, 20, values.shape)).clip(-64, 64).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    evidence = Evidence(feeds, outputs=OUTPUTS)
    wanted = recovery.Settings(
        seconds=3600.0, steps=36, learning_rate=6e-3, features=3, augmentation=0.0
    )
    made = recovery.apply(spoiled, wanted, original=original, evidence=evidence)
    judge = Judge(original, OUTPUTS, threads=1)
    others = list(enumerate({"image": one[None]} for one in renders.digits(100, seed=6)[0]))
    before, after = (judge.figures(model, others) for model in (spoiled, made))
    assert after.agreement > before.agreement
    assert after.loss < before.loss
    assert list(made.graph.node) == list(spoiled.graph.node)
    kinds = [[one.data_type for one in model.graph.initializer] for model in (made, spoiled)]
    assert kinds[0] == kinds[1]
