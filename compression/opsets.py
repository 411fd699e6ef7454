"""Raises a model's operator set, without copying its weights."""

import onnx
from onnx import version_converter

from compression import constants

PER_CHANNEL_OPSET = 13
"""The first opset whose QuantizeLinear has an axis."""
PREFERRED_OPSET = 17


def version(model: onnx.ModelProto) -> int:
    """The version of the standard operators that a model uses."""
    return next(
        (int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 1
    )


def raised(model: onnx.ModelProto, target: int) -> onnx.ModelProto | None:
    """Return the model at opset `target`, or None where onnx knows no way.

    The converter sees the weights as inputs: it copies what it sees several times over.
    """
    light = constants.light(model)
    try:
        converted = version_converter.convert_version(light, target)
    except Exception:  # the converter lacks adapters, and says so in many ways
        return None
    fresh = onnx.ModelProto(ir_version=max(converted.ir_version, constants.LEAST_IR))
    fresh.opset_import.extend(converted.opset_import)
    graph = fresh.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(converted.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(converted.graph.initializer)
    # Heavy ones were inputs to the converter; those that it made itself are in its answer.
    graph.initializer.extend(one for one in model.graph.initializer if constants.is_heavy(one))
    fresh.metadata_props.extend(model.metadata_props)
    return fresh
