"""One-hot codes times a table become rows looked up, with every number answered as before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from compression import graph, runtime
from compression.regular.fusing import rewriting
from tests.fixtures.models import FIXTURES
from tests.simulators import models

RANDOM = np.random.default_rng(0)
ROWS, WIDTH = 7, 5
LENGTH = 6


def model_of(
    path: Path, *, dtype: Any = np.int32, expanded: bool = False, **changes: np.ndarray
) -> Path:
    """The row of a table for each number, as exporters without Gather write it."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["n"])]
    name = "n"
    if expanded:
        nodes += [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Concat", ["s", "rows"], ["e"], axis=0),
            helper.make_node("Expand", ["n", "e"], ["w"]),
        ]
        name = "w"
    nodes += [
        helper.make_node("Equal", [name, "classes"], ["q"]),
        helper.make_node("Cast", ["q"], ["h"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["h", "table"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    values = {
        "shape": np.array([-1, LENGTH, 1], np.int64),
        "classes": np.arange(ROWS, dtype=dtype).reshape(1, 1, ROWS),
        "table": RANDOM.normal(size=(ROWS, WIDTH)).astype("f4"),
        "bias": RANDOM.normal(size=(1, 1, WIDTH)).astype("f4"),
        "rows": np.array([ROWS], np.int64),
        **changes,
    }
    shapes = {"x": ("N", LENGTH)}, {"y": ("N", LENGTH, WIDTH)}
    return models.save(path, nodes, values, *shapes, dtypes={"x": kind})


@pytest.mark.parametrize("expanded", [False, True])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_any_number_finds_its_row_or_zeros(tmp_path: Path, *, dtype: Any, expanded: bool) -> None:
    path = model_of(tmp_path / "m.onnx", dtype=dtype, expanded=expanded)
    model = graph.regular(path)
    left = [node.op_type for node in model.graph.node]
    assert left.count("Gather") == 1
    assert {"MatMul", "Equal", "Expand", "Add", "Relu"}.isdisjoint(left)
    sessions = [runtime.session(path), runtime.session(model)]
    ends = np.iinfo(dtype)
    edges = st.sampled_from([-1, -2, ROWS - 1, ROWS, ROWS + 1, ends.min, ends.max])

    @settings(max_examples=40, deadline=None, database=None)
    @given(numbers=st.lists(edges | st.integers(-3, ROWS + 3), min_size=LENGTH, max_size=LENGTH))
    def every(numbers: list[int]) -> None:
        x = np.array([numbers], dtype)
        want, got = (runtime.run(one, {"x": x})["y"] for one in sessions)
        np.testing.assert_array_equal(want, got)

    every()


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": np.arange(1, ROWS + 1, dtype="i4").reshape(1, 1, ROWS)},
        {"classes": np.array([0, 1, 2, 3, 4, 6, 5], "i4").reshape(1, 1, ROWS)},
        {"table": np.full((ROWS, WIDTH), np.inf, np.float32)},
    ],
    ids=["classes from one on", "classes in another order", "a table of infinities"],
)
def test_what_only_looks_like_a_one_hot_code_stays(
    tmp_path: Path, changes: dict[str, np.ndarray]
) -> None:
    model = onnx.load(model_of(tmp_path / "m.onnx", **changes))
    rewriting.fuse(model)
    assert "Gather" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("bias", [(LENGTH, 1), (LENGTH, WIDTH), (1, 1, 1, WIDTH)])
def test_what_differs_by_place_does_not_go_into_the_table(
    tmp_path: Path, bias: tuple[int, ...]
) -> None:
    path = model_of(tmp_path / "m.onnx", bias=RANDOM.normal(size=bias).astype("f4"))
    model = onnx.load(path)
    rewriting.fuse(model)
    left = [node.op_type for node in model.graph.node]
    assert left[-3:] == ["Gather", "Add", "Relu"]
    x = np.array([[0, 1, 2, 6, 7, -1]], "i4")
    want, got = (runtime.run(runtime.session(one), {"x": x})["y"] for one in (path, model))
    np.testing.assert_array_equal(want, got)


def test_a_real_model_looks_its_bytes_up() -> None:
    fixture = FIXTURES["magika"]()
    x = np.load(fixture.calibration)["bytes"][:4].astype(np.int32)
    model = graph.regular(fixture.onnx, sample={"bytes": x[:1]})
    left = [node.op_type for node in model.graph.node]
    assert left.count("Gather") == 1
    assert left.count("LayerNormalization") == 2
    assert left.count("Softmax") == 1
    assert len(left) < 25  # of more than a hundred
    x[0, :3] = [-1, 257, 10**6]
    want, got = (runtime.run(runtime.session(one), {"bytes": x}) for one in (fixture.onnx, model))
    assert graph.difference(want, got) < 1e-4


def test_where_a_spelling_cancels_the_exact_rules_still_apply() -> None:
    """Of noughts and ones, Magika's E[x^2] - E[x]^2 leaves little but rounding errors."""
    model = graph.regular(FIXTURES["magika"]().onnx)  # on random noughts and ones
    left = [node.op_type for node in model.graph.node]
    assert left.count("Gather") == 1
    assert left.count("FastGelu") == 1
    assert "LayerNormalization" not in left
