"""Whether torch computes what onnxruntime does: before a training, and behind it."""

from typing import Any

import numpy as np
import onnx
import torch

from compression import runtime
from compression.errors import BadModel
from compression.job import Runtime
from compression.recovery.interpreter import tensors
from compression.recovery.student import Student
from compression.statistics import Arrays

TOLERANCE = 1e-3
"""The largest relative difference between torch and onnxruntime, of float models."""
ROUNDED_TOLERANCE = 0.7
"""The same for the root mean square, where a step of a rounded value may fall either way."""
BY_APPROXIMATION = {"Sigmoid": 1e-7, "Tanh": 1e-7}
"""What onnxruntime's own form of an operator errs by (mlas/lib/logistic.cpp, tanh.cpp): a keyword
spotter that hears none says 6e-7, of which that is much."""


def check(student: Student, model: onnx.ModelProto, feeds: Arrays) -> float:
    """Return the largest relative difference between torch and onnxruntime over all outputs.

    For rounded models that of the root mean square: one step up or down is no mistake.

    Raises:
        BadModel: it is above the tolerance.
    """
    rounded = any(node.operator == "QuantizeLinear" for node in student.net.nodes)
    largest = apart(student, model, feeds, optimization="disabled", rounded=rounded)
    if not largest <= (ROUNDED_TOLERANCE if rounded else TOLERANCE):
        raise BadModel(
            f"cannot recover: torch answers otherwise than onnxruntime, by {largest:.1e}"
        )
    return largest


def apart(
    student: Student, model: onnx.ModelProto, feeds: Arrays, *, optimization: str, rounded: bool
) -> float:
    """How far torch is from onnxruntime; with all optimizations those are the fused kernels."""
    how = runtime.options(Runtime(arena=False), optimization=optimization)
    wanted = runtime.run(runtime.session(model, how), feeds)
    with torch.no_grad():
        found = student.net.run(tensors(feeds), student.parameters.values())
    makers = {name: node.operator for node in student.net.nodes for name in node.outputs}
    every = [0.0]
    for name, a in wanted.items():
        b = found[name].numpy()
        if a.dtype.kind != "f" or not a.size:
            continue
        errs = BY_APPROXIMATION.get(makers.get(name, ""), 0.0)
        every.append(_between(a, b, rounded=rounded, errs=errs))
    return float(np.max(every))  # Python's own max passes over NaN


def _between(a: Any, b: Any, *, rounded: bool, errs: float) -> float:
    if a.shape != b.shape:
        return float("inf")
    return _root(a, b) if rounded else _largest(a, b, errs=errs)


def _largest(a: Any, b: Any, *, errs: float) -> float:
    """The largest difference beyond `errs`, in parts of the largest value; NaN if there is any."""
    beyond = np.maximum(np.abs(a - b) - errs, 0.0)
    return float(beyond.max() / max(1e-9, float(np.abs(a).max())))


def _root(a: Any, b: Any) -> float:
    return float(np.sqrt(np.square(a - b).mean() / max(1e-18, float(np.square(a).mean()))))
