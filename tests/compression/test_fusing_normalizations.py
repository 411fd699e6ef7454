"""Normalisations written out become one operator where they answer the same, and only there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compression import runtime
from compression.regular.fusing import rewriting
from tests.simulators import models

RANDOM = np.random.default_rng(0)
DIMS = (2, 6, 4)
SCALES = (1e-3, 0.05, 1.0, 100.0)


@dataclass
class Spelling:
    """How an exporter writes a normalisation of [N, 6, 4] along one axis."""

    axis: int = 2
    sums: bool = False
    squares: bool = False
    """The variance as E[x^2] - E[x]^2, not below 0."""
    reciprocal: bool = False
    power: bool = False
    flat: bool = False
    """Reductions without the axis, that a Reshape brings back."""
    wide: bool = False
    """Every operand expanded to the full shape."""
    epsilon: float = 1e-5
    scaled: bool = True
    centred: bool = True
    variance_axis: int | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def of(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        name = f"c{len(self.values)}"
        array = np.asarray(value)
        self.values[name] = array if array.dtype == np.int64 else array.astype(np.float32)
        return name

    def mean(self, name: str, axis: int) -> str:
        count = DIMS[axis]
        kept = 0 if self.flat else 1
        if self.sums:
            total = self.of("ReduceSum", name, np.array([axis], np.int64), keepdims=kept)
            return self.of("Mul", total, 1 / count)
        return self.of("ReduceMean", name, axes=[axis], keepdims=kept)

    def full(self, name: str) -> str:
        shape = [-1, *DIMS[1:]]
        shape[self.axis] = 1
        if self.flat:
            name = self.of("Reshape", name, np.array(shape, np.int64))
        if self.wide:
            name = self.of("Expand", name, self.of("Shape", "x"))
        return name

    def written(self) -> str:
        mean = self.mean("x", self.axis)
        wide = self.full(mean)
        centred = self.of("Sub", "x", wide) if self.centred else "x"
        over = self.axis if self.variance_axis is None else self.variance_axis
        if self.squares:
            square = self.mean(self.of("Mul", "x", "x"), over)
            variance = self.of("Max", self.of("Sub", square, self.of("Mul", mean, mean)), 0.0)
        else:
            power = self.of("Pow", centred, 2.0) if self.power else self.of("Mul", centred, centred)
            variance = self.mean(power, over)
        root = self.of("Sqrt", self.of("Add", self.full(variance), self.epsilon))
        if self.reciprocal:
            normal = self.of("Mul", centred, self.of("Reciprocal", root))
        else:
            normal = self.of("Div", centred, root)
        if not self.scaled:
            return normal
        shape = [1, 1, 1]
        shape[self.axis] = DIMS[self.axis]
        scaled = self.of("Mul", normal, RANDOM.uniform(0.5, 2, shape))
        return self.of("Add", scaled, RANDOM.normal(size=shape))

    def save(self, path: Path) -> Path:
        last = self.written()
        self.nodes.append(helper.make_node("Identity", [last], ["y"]))
        shape = ("N", *DIMS[1:])
        return models.save(path, self.nodes, self.values, {"x": shape}, {"y": shape})


def fused(path: Path) -> list[str]:
    """Fuse a model and name the operators left; its answers are compared over magnitudes."""
    model = onnx.load(path)
    rewriting.fuse(model)
    sessions = [runtime.session(onnx.load(path)), runtime.session(model)]
    for scale in SCALES:
        for count in (1, 3):
            x = (RANDOM.normal(size=(count, *DIMS[1:])) * scale).astype("f4")
            want, got = (runtime.run(one, {"x": x})["y"] for one in sessions)
            assert np.abs(want - got).max() <= 3e-5 * np.abs(want).max()
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("axis", [1, 2])
def test_layer_normalization_is_recognised_in_any_spelling(tmp_path: Path, axis: int) -> None:
    flags = ["sums", "squares", "reciprocal", "power", "flat", "wide", "scaled"]

    @settings(max_examples=20, deadline=None, database=None)
    @given(chosen=st.fixed_dictionaries({name: st.booleans() for name in flags}))
    def every(chosen: dict[str, bool]) -> None:
        left = fused(Spelling(axis=axis, **chosen).save(tmp_path / "m.onnx"))
        inner = ["Transpose"] if axis == 1 else []
        assert [one for one in left if one not in {"Shape", "Identity"}] == [
            *inner, "LayerNormalization", *inner,
        ]  # fmt: skip

    every()


def test_the_epsilon_is_the_one_written(tmp_path: Path) -> None:
    for epsilon in (1e-12, 1e-6, 1e-3):
        path = Spelling(epsilon=epsilon).save(tmp_path / "m.onnx")
        model = onnx.load(path)
        rewriting.fuse(model)
        (node,) = (one for one in model.graph.node if one.op_type == "LayerNormalization")
        assert [one.f for one in node.attribute if one.name == "epsilon"] == [np.float32(epsilon)]


@pytest.mark.parametrize(
    "spelling",
    [Spelling(centred=False), Spelling(variance_axis=1), Spelling(epsilon=0.5)],
    ids=["not centred", "variance along another axis", "an epsilon as large as the variance"],
)
def test_what_only_looks_like_layer_normalization_stays(tmp_path: Path, spelling: Any) -> None:
    assert "LayerNormalization" not in fused(spelling.save(tmp_path / "m.onnx"))


def test_a_mean_that_others_read_is_still_made(tmp_path: Path) -> None:
    path = Spelling().save(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.output.append(onnx.ValueInfoProto(name="t0"))
    rewriting.fuse(model)
    assert "t0" in {name for node in model.graph.node for name in node.output}
    assert "LayerNormalization" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("axis", [1, 2])
def test_softmax_written_out_becomes_one(tmp_path: Path, axis: int) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], axes=[axis], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Exp", ["d"], ["e"]),
        helper.make_node("ReduceSum", ["e", "axes"], ["s"], keepdims=1),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]
    shape = ("N", *DIMS[1:])
    values = {"axes": np.array([axis], np.int64)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": shape}, {"y": shape})
    assert fused(path) == ["Softmax"]
