"""Moves the biases of quantized layers so that each channel keeps the mean that it had in float.

Rounding shifts means, and the shifts of many layers add up. Each layer is corrected with those
before it already corrected and compressed, against the float model's own means on the same inputs:
Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2; Finkelstein et al., "Fighting Quantization Bias With Bias", 2019.
"""

import onnx
from pydantic import Field

from compression.calibration.channels import Layout
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.passes import biases, counterparts, qdq
from compression.words import Words


class Settings(Words):
    """The parameters of this pass."""

    samples: int = Field(default=16, ge=1)
    """The most calibration inputs that are run for each step."""
    strength: float = Field(default=1.0, gt=0, le=1)
    """The share of a shift that is taken back."""
    behind_activation: bool = False
    """Means are compared behind a Relu or Clip that follows, and not before it."""
    only: tuple[str, ...] | None = None
    """If given, the only layers that are corrected, by the name of their first output."""


def apply(
    model: onnx.ModelProto,
    settings: Settings,
    *,
    reference: onnx.ModelProto,
    evidence: Evidence,
) -> onnx.ModelProto:
    """Return a new model with corrected biases; `reference` is the float model behind `model`.

    A Conv without a bias gets one; a MatMul is corrected where a constant is added behind it.

    Raises:
        BadModel: no layer has integer weights and a bias.
    """
    float_graph = qdq.Graph(reference)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    layers = [
        layer
        for layer in counterparts.layers(float_graph, qdq.Graph(model))
        if settings.only is None or layer.output in settings.only
    ]
    found = biases.find(changed, layers)
    if not found:
        raise BadModel("cannot correct biases: no layer has integer weights and a bias")
    seen = {one.output: _compared(float_graph, one, settings) for one in found}
    layouts: dict[str, Layout] = {seen[one.output]: one.layout for one in found}
    target = evidence.means(reference, layouts, most=settings.samples)
    for step in _levels(changed, found):
        wanted = {seen[one.output]: one.layout for one in step if seen[one.output] in target}
        means = evidence.means(changed, wanted, most=settings.samples)
        for one in step:
            name = seen[one.output]
            if name in means and means[name].shape == target[name].shape:
                one.add(changed, settings.strength * (target[name] - means[name]))
    return changed


def _compared(graph: qdq.Graph, bias: biases.Bias, settings: Settings) -> str:
    """Name the tensor whose means are compared, in both models."""
    readers = graph.readers.get(bias.output, [])
    alone = len(readers) == 1 and bias.output not in graph.outputs
    if settings.behind_activation and alone and readers[0].op_type in counterparts.ACTIVATIONS:
        return str(readers[0].output[0])
    return bias.output


def _levels(model: onnx.ModelProto, found: list[biases.Bias]) -> list[list[biases.Bias]]:
    """Divide layers into steps in order, so that no layer of a step lies behind another one."""
    depth: dict[str, int] = {}
    places = {one.output for one in found}
    for node in model.graph.node:
        before = max((depth.get(name, 0) for name in node.input), default=0)
        for name in node.output:
            depth[name] = before + (name in places)
    levels: dict[int, list[biases.Bias]] = {}
    for one in found:
        levels.setdefault(depth[one.output], []).append(one)
    return [levels[key] for key in sorted(levels)]
