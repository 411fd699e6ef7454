"""Before anything is trained, torch has to answer as onnxruntime does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from compression.errors import BadModel
from compression.recovery import equality
from compression.recovery.operators import table
from compression.recovery.student import Student

FEEDS = {"x": np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(3, 4)}


def student(operator: str, *, bias: float = 0.0) -> Student:
    weights = {
        "w": np.eye(4, dtype=np.float32), "b": np.full(4, bias, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node(operator, ["h"], ["y"]),
    ]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [None, 4])],
        [helper.make_tensor_value_info("y", 1, [None, 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Student(model, aims=(), features=())


def check(one: Student) -> float:
    return equality.check(one, one.model, FEEDS)


def test_what_is_the_same_differs_by_nothing_worth_a_name() -> None:
    assert check(student("Relu")) < 1e-6


@pytest.mark.parametrize(
    ("spoils", "says"),
    [
        (lambda x: x * 1.01, "by 1.0e-02"),
        (lambda x: x * torch.nan, "by nan"),
        (lambda x: torch.where(x > 1.4, torch.nan, x), "by nan"),
        (lambda x: x + torch.inf, "by inf"),
        (lambda x: x[:, :2], "by inf"),
    ],
    ids=["a little", "not a number", "one that is not a number", "infinite", "of other shapes"],
)
def test_an_operator_that_torch_computes_otherwise_refuses_the_model(
    monkeypatch: pytest.MonkeyPatch, spoils: Callable[[Any], Any], says: str
) -> None:
    monkeypatch.setitem(table.OPERATORS, "Relu", lambda _node, x: spoils(torch.relu(x[0])))
    with pytest.raises(BadModel, match=f"cannot recover: torch answers otherwise .*{says}"):
        check(student("Relu"))


@pytest.mark.parametrize("bias", [-14.0, -17.0, -80.0, 80.0])
def test_a_probability_next_to_nothing_is_no_reason_to_refuse(bias: float) -> None:
    """onnxruntime's Sigmoid errs by some 1e-8, much beside 1e-7."""
    assert check(student("Sigmoid", bias=bias)) <= equality.TOLERANCE
