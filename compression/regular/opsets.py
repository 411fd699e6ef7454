"""Raises a model's operator set, without copying its weights."""

import onnx
from onnx import version_converter

from compression import bodies
from compression.regular import constants

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear has an axis."""
PREFERRED_OPSET = 17


def version(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return next(
        (int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 1
    )


def raise_to(model: onnx.ModelProto, target: int) -> bool:
    """Raise a model to opset `target` in place; False, and unchanged, where onnx knows no way.

    The converter sees the weights as inputs: it copies what it sees several times over. It does
    not look into bodies and functions, whose operators would silently mean something else.
    """
    if model.functions or any(True for node in model.graph.node for _ in bodies.of(node)):
        return False
    try:
        converted = version_converter.convert_version(constants.light(model), target)
    except Exception:  # the converter lacks adapters, and says so in many ways
        return False
    _adopt(model, converted)
    return True


def _adopt(model: onnx.ModelProto, light: onnx.ModelProto) -> None:
    """Take over everything but the heavy weights from a graph that `constants.light` began."""
    model.ir_version = max(light.ir_version, constants.LEAST_IR)
    del model.opset_import[:]
    model.opset_import.extend(light.opset_import)
    graph = model.graph
    del graph.node[:]
    graph.node.extend(light.graph.node)
    del graph.value_info[:]
    for at in reversed(range(len(graph.initializer))):
        if not constants.is_heavy(graph.initializer[at]):
            del graph.initializer[at]
    graph.initializer.extend(light.graph.initializer)
