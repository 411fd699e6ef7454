"""Activations written out in small operators become one, in every exporter's spelling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compression import graph, runtime
from compression.regular.fusing import rewriting
from tests.fixtures.models import FIXTURES
from tests.simulators import models

Draw = Any
X = {"x": ("N", 3, 5, 4)}
Y = {"y": ("N", 3, 5, 4)}
HARD = [1e-3, 0.5, 2.999, 3.001, 20.0, 60.0, 1e4, 1e9, 0.0]


@dataclass
class Writer:
    """Writes a graph of small operators; constants as numbers, of a drawn shape."""

    draw: Draw
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, operator: str, *inputs: str | float, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name

    def either(self, operator: str, a: str | float, b: str | float) -> str:
        """An operator whose operands may stand in any order."""
        return self.of(operator, a, b) if self.draw(st.booleans()) else self.of(operator, b, a)

    def constant(self, value: float) -> str:
        name = f"c{len(self.values)}"
        shape = self.draw(st.sampled_from([(), (), (1,), (1, 1, 1, 1)]))
        self.values[name] = np.full(shape, value, np.float32)
        return name

    def clip(self, x: str, low: float, high: float) -> str:
        how = self.draw(st.sampled_from(["clip", "min of max", "max of min", "relu"]))
        if how == "clip":
            names = []
            for value in (low, high):
                names.append(f"c{len(self.values)}")
                self.values[names[-1]] = np.array(value, np.float32)
            return self.of("Clip", x, *names)
        if how == "min of max":
            return self.either("Min", self.either("Max", x, low), high)
        if how == "max of min":
            return self.either("Max", self.either("Min", x, high), low)
        return self.either("Min", self.of("Relu", x), high) if low == 0 else self.clip(x, low, high)

    def times(self, x: str, factor: float) -> str:
        if self.draw(st.booleans()):
            return self.of("Div", x, 1 / factor)
        return self.either("Mul", x, factor)

    def end(self, name: str, path: Path, outputs: Mapping[str, Sequence[Any]] = Y) -> Path:
        self.nodes[-1].output[0] = "y"
        assert name == f"t{len(self.nodes) - 1}"
        return models.save(path, self.nodes, self.values, X, outputs)


def hard_sigmoid(w: Writer, x: str) -> str:
    if w.draw(st.booleans()):
        return w.times(w.clip(w.either("Add", x, 3.0), 0.0, 6.0), 1 / 6)
    return w.clip(w.either("Add", w.times(x, 1 / 6), 0.5), 0.0, 1.0)


def hard_swish(w: Writer, x: str) -> str:
    clipped = w.clip(w.either("Add", x, 3.0), 0.0, 6.0)
    if w.draw(st.booleans()):
        return w.times(w.either("Mul", x, clipped), 1 / 6)
    return w.either("Mul", x, w.times(clipped, 1 / 6))


def silu(w: Writer, x: str) -> str:
    down = w.either("Add", w.of("Exp", w.of("Neg", x)), 1.0)
    if w.draw(st.booleans()):
        return w.of("Div", x, down)
    return w.either("Mul", x, w.of("Reciprocal", down))


def tanh_gelu(w: Writer, x: str) -> str:
    cube = (
        w.of("Pow", x, 3.0) if w.draw(st.booleans()) else w.either("Mul", x, w.either("Mul", x, x))
    )
    inner = w.either("Add", x, w.either("Mul", cube, 0.044715))
    upper = w.either("Add", w.of("Tanh", w.either("Mul", inner, (2 / np.pi) ** 0.5)), 1.0)
    if w.draw(st.booleans()):
        return w.times(w.either("Mul", x, upper), 0.5)
    return w.either("Mul", x, w.times(upper, 0.5))


def mish(w: Writer, x: str) -> str:
    return w.either("Mul", x, w.of("Tanh", w.of("Softplus", x)))


def leaky(w: Writer, x: str) -> str:
    return w.either("Max", x, w.times(x, 0.125))


WRITTEN = {
    hard_sigmoid: ["HardSigmoid"],
    hard_swish: ["HardSigmoid", "Mul"],
    silu: ["Sigmoid", "Mul"],
    tanh_gelu: ["FastGelu"],
    mish: ["Sigmoid", "Sub", "Mul", "Sub", "Div", "Mul"],
    leaky: ["LeakyRelu"],
}


def gap(path: Path, changed: onnx.ModelProto) -> float:
    """The largest difference beside the values read, over sizes from 1e-3 to 1e9."""
    random = np.random.default_rng(0)
    sessions = [runtime.session(onnx.load(path)), runtime.session(changed)]
    worst = 0.0
    for scale in HARD:
        x = (random.normal(size=(2, 3, 5, 4)) * scale).astype("f4")
        want, got = (runtime.run(one, {"x": x}) for one in sessions)
        for name in want:
            size = max(1.0, float(np.abs(x).max()), float(np.abs(want[name]).max()))
            worst = max(worst, float(np.abs(want[name] - got[name]).max()) / size)
    return worst


@pytest.mark.parametrize("function", WRITTEN, ids=lambda one: one.__name__)
def test_an_activation_is_recognised_in_any_spelling(tmp_path: Path, function: Any) -> None:
    @settings(max_examples=12, deadline=None, database=None)
    @given(data=st.data())
    def every(data: st.DataObject) -> None:
        w = Writer(data.draw)
        path = w.end(function(w, "x"), tmp_path / "m.onnx")
        model = onnx.load(path)
        rewriting.fuse(model)
        left = [node.op_type for node in model.graph.node]
        assert left[-len(WRITTEN[function]) :] == WRITTEN[function]
        assert len(left) == len(WRITTEN[function])
        assert gap(path, model) < 2e-6

    every()


CLIPPED = ("Clip", ["a", "low", "high"])
NEAR_MISSES = {
    "clipped at 5": ({"high": 5.0}, {}),
    "clipped from -1": ({"low": -1.0}, {}),
    "divided by 5.9": ({"six": 5.9}, {}),
    "another tensor joined": ({}, {2: ("Mul", ["z", "b"])}),
    "a constant for each channel": ({"three": np.full((3, 1, 1), 3.0)}, {}),
}


@pytest.mark.parametrize("changes", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_only_looks_like_hard_swish_keeps_its_answers(tmp_path: Path, changes: Any) -> None:
    values, steps = changes
    path = written(tmp_path, values, steps)
    model = onnx.load(path)
    before = model.SerializeToString()
    assert rewriting.fuse(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("operator", "three"), [("Add", 3.1), ("Sub", 3.0), ("Add", -2.0)])
def test_a_ramp_at_another_place_is_taken_with_its_own_parameters(
    tmp_path: Path, operator: str, three: float
) -> None:
    path = written(tmp_path, {"three": three}, {0: (operator, ["x", "three"])})
    model = onnx.load(path)
    assert rewriting.fuse(model) == 1
    assert [node.op_type for node in model.graph.node] == ["HardSigmoid", "Mul"]
    assert gap(path, model) < 1e-6


def test_a_value_that_others_see_is_still_made(tmp_path: Path) -> None:
    for seen in "abc":
        path = written(tmp_path, {}, {}, outputs=("y", seen))
        model = onnx.load(path)
        rewriting.fuse(model)
        assert [value.name for value in model.graph.output] == ["y", seen]
        assert any(seen in node.output for node in model.graph.node)
        assert gap(path, model) < 1e-6


def test_a_value_read_elsewhere_is_still_made(tmp_path: Path) -> None:
    path = written(tmp_path, {}, {4: ("Sub", ["d", "b"])}, outputs=("e",))
    model = onnx.load(path)
    rewriting.fuse(model)
    assert any("b" in node.output for node in model.graph.node)
    assert gap(path, model) < 1e-6


def test_a_constant_of_more_axes_than_the_tensor_adds_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("Mul", ["a", "half"], ["y"]),
    ]
    values = {"two": np.full((1, 1, 1), 2, np.float32), "half": np.full((1,), 0.5, np.float32)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": ("N", 4)}, {"y": (1, "N", 4)})
    model = graph.regular(path)
    assert runtime.run(runtime.session(model), {"x": np.ones((2, 4), "f4")})["y"].shape == (1, 2, 4)


def test_infinite_and_missing_values_answer_as_before(tmp_path: Path) -> None:
    path = written(tmp_path, {}, {})
    model = onnx.load(path)
    assert rewriting.fuse(model) == 1
    x = np.zeros((1, 3, 5, 4), np.float32)
    x.ravel()[:4] = [np.inf, -np.inf, np.nan, -0.0]
    # Without optimizations: with them the runtime itself computes HardSwish by its own kernel.
    plain = runtime.options(optimization="disabled")
    want, got = (
        runtime.run(runtime.session(one, plain), {"x": x})["y"] for one in (onnx.load(path), model)
    )
    np.testing.assert_array_equal(want, got)


def test_what_follows_an_operator_of_the_runtime_keeps_its_shape(tmp_path: Path) -> None:
    w = Writer(lambda _: ())  # a constant's shape; and of two orders the second
    w.nodes.append(helper.make_node("Exp", [tanh_gelu(w, "x")], ["y"]))
    path = models.save(tmp_path / "m.onnx", w.nodes, w.values, X, {"y": [None] * 4})
    model = onnx.load(path)
    rewriting.fuse(model)
    assert [node.op_type for node in model.graph.node] == ["FastGelu", "Exp"]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model).graph.output[0]
    assert len(inferred.type.tensor_type.shape.dim) == 4


def test_a_real_model_with_hard_swish_answers_the_same_with_fewer_nodes() -> None:
    path = FIXTURES["text-angle"]().onnx
    model = graph.regular(path)
    left = [node.op_type for node in model.graph.node]
    assert left.count("HardSigmoid") == 27  # 18 of HardSwish, 9 of squeeze and excitation
    assert {"Clip", "Div"}.isdisjoint(left)


def written(
    tmp_path: Path,
    values: Mapping[str, Any],
    steps: Mapping[int, tuple[str, list[str]]],
    outputs: Sequence[str] = ("y",),
) -> Path:
    """HardSwish in four nodes a, b, c, y; with some constants or nodes exchanged."""
    given_values = {"three": 3.0, "low": 0.0, "high": 6.0, "six": 6.0, **values}
    plan = {
        0: ("Add", ["x", "three"]),
        1: CLIPPED,
        2: ("Mul", ["x", "b"]),
        3: ("Div", ["c", "six"]),
        **steps,
    }
    names = ["a", "b", "c", "d" if 4 in plan else "y", "e"]
    nodes = [helper.make_node(*plan[at], [names[at]]) for at in sorted(plan)]
    return models.save(
        tmp_path / "m.onnx",
        nodes,
        {name: np.asarray(value, np.float32) for name, value in given_values.items()},
        {**X, "z": X["x"]} if any("z" in names for _, names in plan.values()) else X,
        dict.fromkeys(outputs, X["x"]),
    )


@pytest.mark.parametrize("epsilon", [5e-7, 1e-7, 1e-12])
@pytest.mark.parametrize(
    "guarded",
    [
        [("Abs", "x"), ("Add", "t0", "e"), ("Log", "t1")],
        [("Abs", "x"), ("Add", "t0", "e"), ("Div", "x", "t1")],
        [("Neg", "x"), ("Relu", "t0"), ("Add", "t1", "e"), ("Reciprocal", "t2")],
        [("Sigmoid", "x"), ("Clip", "t0", "", "f"), ("Sub", "one", "t1"), ("Log", "t2")],
    ],
)
def test_what_keeps_a_function_finite_stays(
    guarded: list[tuple[str, ...]], epsilon: float, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node(operator, inputs, [f"t{at}"])
        for at, (operator, *inputs) in enumerate(guarded)
    ]
    nodes[-1].output[0] = "y"
    constants = {"e": epsilon, "f": 1 - max(epsilon, 1e-7), "one": 1.0}
    weights = {name: np.array(value, np.float32) for name, value in constants.items()}
    path = models.save(tmp_path / "m.onnx", nodes, weights, X, Y)
    harmless = {"x": np.full((1, 3, 5, 4), 2.0, np.float32)}
    changed = graph.regular(path, sample=harmless)
    for value in (0.0, 120.0):
        feeds = {"x": np.full((1, 3, 5, 4), value, np.float32)}
        wanted = runtime.run(runtime.session(path), feeds)["y"]
        assert np.isfinite(wanted).all()
        assert np.allclose(runtime.run(runtime.session(changed), feeds)["y"], wanted, rtol=1e-5)
