"""What only copies, or works out shapes, goes where nobody needs it, and only there."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compression import runtime
from compression.regular.fusing import rewriting
from tests.simulators import models

RANDOM = np.random.default_rng(0)
N, T, C = "N", "T", 6


def fused(path: Path, *shapes: tuple[int, ...]) -> list[str]:
    """Fuse a model and name the operators left; its answers stay to the last bit."""
    model = onnx.load(path)
    rewriting.fuse(model)
    sessions = [runtime.session(onnx.load(path)), runtime.session(model)]
    for shape in shapes:
        x = RANDOM.normal(size=shape).astype("f4")
        want, got = (runtime.run(one, {"x": x})["y"] for one in sessions)
        np.testing.assert_array_equal(want, got)
    return [node.op_type for node in model.graph.node]


def viewed(*parts: int | tuple[str, int]) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """`h.view(...)` of numbers and of dims of tensors; h is x with a Relu."""
    nodes = [helper.make_node("Relu", ["x"], ["h"])]
    values: dict[str, np.ndarray] = {"zero": np.array([0], np.int64)}
    names = []
    for at, part in enumerate(parts):
        names.append(f"p{at}")
        if isinstance(part, int):
            values[names[-1]] = np.array([part], np.int64)
            continue
        tensor, axis = part
        values[f"i{at}"] = np.array(axis, np.int64)
        nodes += [
            helper.make_node("Shape", [tensor], [f"s{at}"]),
            helper.make_node("Gather", [f"s{at}", f"i{at}"], [f"g{at}"]),
            helper.make_node("Unsqueeze", [f"g{at}", "zero"], [names[-1]]),
        ]
    nodes += [
        helper.make_node("Concat", names, ["to"], axis=0),
        helper.make_node("Reshape", ["h", "to"], ["y"]),
    ]
    return nodes, values


@pytest.mark.parametrize(
    ("parts", "target"),
    [
        ((("h", 0), ("h", 1), 2, 3), [0, 0, 2, 3]),
        ((("x", 0), ("h", -2), 2, 3), [0, 0, 2, 3]),
        ((("x", 0), 2, ("x", 1), 3), [0, 2, -1, 3]),
        ((("h", 1), ("h", 0), 6), None),
        ((("h", 0), -1), [0, -1]),
        ((("h", 1), -1), None),
    ],
)
def test_a_target_is_constant_where_dims_say_so(
    tmp_path: Path, parts: Any, target: list[int] | None
) -> None:
    nodes, values = viewed(*parts)
    path = models.save(
        tmp_path / "m.onnx", nodes, values, {"x": (N, T, C)}, {"y": [None] * len(parts)}
    )
    fused(path, (2, 5, C), (1, 3, C), (4, 4, C))
    model = onnx.load(path)
    rewriting.fuse(model)
    (reshape,) = (node for node in model.graph.node if node.op_type == "Reshape")
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    found = constants.get(reshape.input[1])
    assert (None if found is None else found.tolist()) == target


def expanded(shape: tuple[int, ...], operator: str = "Mul") -> list[onnx.NodeProto]:
    """A mean over the last axis, written out in full before it is joined with `k` and x."""
    del shape
    return [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=1),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Expand", ["m", "s"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node(operator, ["b", "x"], ["y"]),
    ]


@pytest.mark.parametrize("operator", ["Mul", "Sub", "Div"])
def test_an_expand_goes_where_operators_broadcast(tmp_path: Path, operator: str) -> None:
    values = {"one": np.array(1, np.float32)}
    shape = (N, T, C)
    nodes = expanded(shape, operator)
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": shape}, {"y": shape})
    left = fused(path, (2, 5, C), (1, 3, C))
    assert "Expand" not in left


@pytest.mark.parametrize(
    "last",
    [
        helper.make_node("MatMul", ["e", "w"], ["y"]),
        helper.make_node("Mul", ["e", "m"], ["y"]),
        helper.make_node("Identity", ["e"], ["y"]),
        helper.make_node("Mul", ["e", "e"], ["y"]),
    ],
    ids=["a product", "as narrow a partner", "a result", "itself"],
)
def test_an_expand_that_gives_the_shape_stays(tmp_path: Path, last: onnx.NodeProto) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2], keepdims=1),
        helper.make_node("Expand", ["m", "full"], ["e"]),
        last,
    ]
    values = {
        "full": np.array([1, 1, C], np.int64),
        "w": RANDOM.normal(size=(C, C)).astype("f4"),
    }
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": (N, T, C)}, {"y": (N, T, C)})
    assert "Expand" in fused(path, (2, 5, C), (1, 3, C))


@pytest.mark.parametrize(
    ("starts", "ends", "steps", "goes"),
    [
        ([0, 0], [10**9, C], [1, 1], True),
        ([0, 0], [2**63 - 1, C + 9], [1, 1], True),
        ([0, 1], [10**9, C], [1, 1], False),
        ([0, 0], [10**9, C - 1], [1, 1], False),
        ([0, 0], [1000, C], [1, 1], False),
        ([0, 0], [10**9, -1], [1, 1], False),
        ([0, 0], [10**9, C], [1, 2], False),
    ],
)
def test_only_a_slice_of_everything_goes(
    tmp_path: Path, starts: list[int], ends: list[int], steps: list[int], *, goes: bool
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Slice", ["h", "starts", "ends", "axes", "steps"], ["s"]),
        helper.make_node("Exp", ["s"], ["y"]),
    ]
    lists = {"starts": starts, "ends": ends, "axes": [1, 2], "steps": steps}
    values = {name: np.array(value, np.int64) for name, value in lists.items()}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": (N, T, C)}, {"y": (N, T, None)})
    assert ("Slice" not in fused(path, (2, 5, C), (1, 3, C))) == goes


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        ([0, 2, 1], [0, 2, 1], ["Relu", "Exp"]),
        ([1, 2, 0], [2, 0, 1], ["Relu", "Exp"]),
        ([1, 2, 0], [1, 2, 0], ["Relu", "Transpose", "Exp"]),
        ([0, 2, 1], [1, 0, 2], ["Relu", "Transpose", "Exp"]),
    ],
)
def test_transposes_in_a_row_become_one_or_none(
    tmp_path: Path, first: list[int], second: list[int], left: list[str]
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Transpose", ["h"], ["a"], perm=first),
        helper.make_node("Transpose", ["a"], ["b"], perm=second),
        helper.make_node("Exp", ["b"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": (N, T, C)}, {"y": [None] * 3})
    assert fused(path, (2, 5, C)) == left


def test_transposes_before_a_result_keep_its_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["a"], ["y"], perm=[0, 2, 1]),
        helper.make_node("Exp", ["y"], ["z"]),
    ]
    outputs = {"y": (N, T, C), "z": (N, T, C)}
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": (N, T, C)}, outputs)
    assert fused(path, (2, 5, C)) == ["Transpose", "Exp"]


def test_an_unsqueeze_between_transposes_moves_to_where_they_meant(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Transpose", ["h"], ["a"], perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["a", "at"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]),
        helper.make_node("Exp", ["c"], ["y"]),
    ]
    values = {"at": np.array([3], np.int64)}
    path = models.save(tmp_path / "m.onnx", nodes, values, {"x": (N, T, C)}, {"y": [None] * 4})
    assert fused(path, (2, 5, C)) == ["Relu", "Unsqueeze", "Exp"]
