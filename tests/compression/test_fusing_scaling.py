"""Constants that scale and shift go into weights exactly, and stay where they could not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compression import graph, runtime
from compression.regular import equality
from compression.regular.fusing import rewriting
from tests.fixtures import graphs
from tests.simulators import models

RANDOM = np.random.default_rng(0)
X = {"x": ("N", 4, 8, 8)}
Y = {"y": ("N", "C", "H", "W")}


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("f4")


def fused(path: Path) -> list[str]:
    """Fuse a model, run it beside the original at two shapes, and name the operators left."""
    model = onnx.load(path)
    rewriting.fuse(model)
    onnx.checker.check_model(model)
    changed = path.with_name("changed.onnx")
    onnx.save(model, changed)
    assert equality.ask(path, sample=None, seed=3).gap(changed) < 1e-5
    return [node.op_type for node in model.graph.node]


CONV = ("Conv", (6, 4, 3, 3), {})
DEPTH = ("Conv", (4, 1, 3, 3), {"group": 4})
TRANSPOSED = ("ConvTranspose", (4, 3, 3, 3), {"group": 2})
LINES = ["Mul", "Add", "Sub", "Div"]


@pytest.mark.parametrize("maker", [CONV, DEPTH, TRANSPOSED], ids=["plain", "depthwise", "upwards"])
def test_lines_behind_a_convolution_go_into_it(tmp_path: Path, maker: Any) -> None:
    kind, shape, attributes = maker
    channels = 6 if kind == "ConvTranspose" else shape[0]

    @settings(max_examples=15, deadline=None, database=None)
    @given(data=st.data())
    def every(data: st.DataObject) -> None:
        biased = data.draw(st.booleans())
        nodes = [
            helper.make_node(kind, ["x", "w", "b"] if biased else ["x", "w"], ["c"], **attributes)
        ]
        values = {"w": weights(*shape), **({"b": weights(channels)} if biased else {})}
        last = "c"
        for at, one in enumerate(data.draw(st.lists(st.sampled_from(LINES), min_size=1))[:4]):
            size = data.draw(st.sampled_from([(), (1,), (channels, 1, 1), (1, channels, 1, 1)]))
            values[f"k{at}"] = RANDOM.uniform(0.5, 2, size).astype("f4")
            first = one != "Div" and data.draw(st.booleans())
            names = [f"k{at}", last] if first else [last, f"k{at}"]
            nodes.append(helper.make_node(one, names, [f"t{at}"]))
            last = f"t{at}"
        nodes.append(helper.make_node("Relu", [last], ["y"]))
        path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
        assert fused(path) == [kind, "Relu"]

    every()


@pytest.mark.parametrize(
    ("pads", "shift", "left"),
    [
        ((0, 0, 0, 0), 0.7, ["Relu", "Conv", "Conv", "Add"]),
        ((1, 1, 1, 1), 0.0, ["Relu", "Conv", "Conv", "Add"]),
        # Zeros are padded behind the shift: at the borders no bias can stand for it.
        ((1, 1, 1, 1), 0.7, ["Relu", "BatchNormalization", "Conv", "Conv", "Add"]),
    ],
)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_lines_before_convolutions_go_into_all_of_them(
    tmp_path: Path, pads: Sequence[int], shift: float, left: list[str], groups: int
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mul", ["r", "k"], ["m"]),
        helper.make_node("Add", ["s", "m"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["c"], group=groups, pads=pads),
        helper.make_node("Conv", ["a", "v", "b"], ["d"], pads=pads),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    values = {
        "k": weights(4, 1, 1),
        "s": np.full((1, 4, 1, 1), shift, np.float32),
        "w": weights(4, 4 // groups, 3, 3),
        "v": weights(4, 4, 3, 3),
        "b": weights(4),
    }
    path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
    assert fused(path) == left


def line_before(reader: onnx.NodeProto, *more: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [helper.make_node("Mul", ["x", "k"], ["m"]), reader, *more]


STAYING: Mapping[str, tuple[list[onnx.NodeProto], tuple[int, ...]]] = {
    "a constant along the width": (line_before(helper.make_node("Conv", ["m", "w"], ["y"])), (8,)),
    "a reader that is no convolution": (
        line_before(
            helper.make_node("Conv", ["m", "w"], ["c"], pads=[1] * 4),
            helper.make_node("Add", ["c", "m"], ["y"]),
        ),
        (4, 1, 1),
    ),
    "weights that another node reads": (
        line_before(
            helper.make_node("Conv", ["m", "w"], ["c"], pads=[1] * 4),
            helper.make_node("Conv", ["c", "w"], ["y"]),
        ),
        (4, 1, 1),
    ),
}


@pytest.mark.parametrize("case", STAYING.values(), ids=STAYING)
def test_a_line_stays_where_weights_cannot_take_it(tmp_path: Path, case: Any) -> None:
    nodes, shape = case
    values = {"k": weights(*shape), "w": weights(4, 4, 3, 3)}
    path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
    assert "Mul" in fused(path)


@pytest.mark.parametrize("value", [0.0, np.inf, np.nan])
def test_a_division_by_what_is_no_number_stays(tmp_path: Path, value: float) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Div", ["c", "k"], ["y"]),
    ]
    values = {"k": np.array(value, np.float32), "w": weights(4, 4, 3, 3)}
    path = models.save(tmp_path / "m.onnx", nodes, values, X, Y)
    model = onnx.load(path)
    rewriting.fuse(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Div"]


def test_a_result_of_the_model_keeps_its_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Mul", ["c", "k"], ["y"]),
        helper.make_node("Add", ["y", "k"], ["z"]),
    ]
    values = {"k": weights(4, 1, 1), "w": weights(4, 4, 3, 3)}
    outputs = {"y": Y["y"], "z": Y["y"]}
    path = models.save(tmp_path / "m.onnx", nodes, values, X, outputs)
    assert fused(path) == ["Conv", "Add"]


def test_learnable_affine_blocks_of_a_real_recogniser_go() -> None:
    """PP-LCNetV3: a scale and a shift behind each Conv and each HardSwish, two nodes each."""
    path = graphs.fetch("ocr-v4-recogniser")
    model = graph.regular(path)
    left = [node.op_type for node in model.graph.node]
    assert left.count("Conv") == 38
    assert "Clip" not in left
    assert left.count("Mul") + left.count("Add") < 100  # of 200
    oracle = equality.ask(path, sample=None, seed=5)
    feeds, wanted = oracle.cases[0]
    assert graph.difference(wanted, runtime.run(runtime.session(model), feeds)) < 1e-4
