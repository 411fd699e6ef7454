"""What a student is drawn to: which tensors of it and of the original are compared, and how (pure).

An output that a Softmax or Sigmoid makes is compared by what goes into that: there the gradient
does not vanish. Of outputs behind what has no gradient (the boxes that a suppression leaves) the
last layers with weights before it are compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from compression.job import OutputKind, OutputSpec

Way = Literal["classes", "odds", "direction", "values"]
WAYS: dict[OutputKind, Way] = {
    "logits": "classes", "steps": "classes", "score": "odds", "mask": "odds",
    "embedding": "direction", "detections": "values", "tensor": "values", "state": "values",
}  # fmt: skip
BEFORE = {"classes": ("Softmax", "LogSoftmax"), "odds": ("Sigmoid",)}
"""What makes an output of a kind, whose input is compared instead."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")
FEATURES = 6
"""Tensors inside of the model that are compared too."""


@dataclass(frozen=True)
class Aim:
    """One comparison: the tensor's name in either model, and how the two are compared."""

    teacher: str
    student: str
    way: Way
    axis: int = -1
    """Of classes."""
    direct: bool = False
    """Whether these are the output's own values: shares perhaps, not what makes them."""


def of_outputs(
    original: onnx.ModelProto, student: onnx.ModelProto, outputs: Sequence[OutputSpec]
) -> tuple[Aim, ...]:
    """The aims of all outputs; one without a spec is a tensor."""
    specs = {spec.name: spec for spec in outputs}
    theirs, ours = _makers(original), _makers(student)
    found: list[Aim] = []
    for value in original.graph.output:
        spec = specs.get(value.name, OutputSpec(name=value.name))
        if spec.kind == "detections":
            found += [aim for aim in layers_behind(original, student) if aim not in found]
            continue
        way = WAYS[spec.kind]
        axis = -1 if spec.axis is None else spec.axis
        before = BEFORE.get(way, ())
        sides = [_before_rounding(makers, value.name) for makers in (theirs, ours)]
        made = [node for node in sides if node is not None and node.op_type in before]
        if len(made) == 2:
            found.append(Aim(made[0].input[0], made[1].input[0], way, axis))
        else:
            found.append(Aim(value.name, value.name, way, axis, direct=True))
    return tuple(found)


def layers_behind(original: onnx.ModelProto, student: onnx.ModelProto) -> tuple[Aim, ...]:
    """The last layers with weights on each way to an output, in the original's order."""
    makers, weights = _makers(original), _constants(original)
    last: set[str] = set()
    todo, seen = [value.name for value in original.graph.output], set[str]()
    while todo:
        name = todo.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if _weighted(node, weights):
            last.add(node.output[0])
        else:
            todo += node.input
    both = _makers(student)
    return tuple(Aim(name, name, "values") for name in makers if name in last and name in both)


def of_features(
    original: onnx.ModelProto, student: onnx.ModelProto, *, most: int = FEATURES
) -> tuple[Aim, ...]:
    """Outputs of layers with weights that both models have, evenly over the depth."""
    weights, both = _constants(original), _makers(student)
    names = [
        node.output[0]
        for node in original.graph.node
        if _weighted(node, weights) and node.output[0] in both
    ]
    outputs = {value.name for value in original.graph.output}
    names = [name for name in names if name not in outputs]
    chosen = dict.fromkeys(names[at] for at in _spread(len(names), most))
    return tuple(Aim(name, name, "values") for name in chosen)


def _before_rounding(makers: Mapping[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """What makes a tensor, seen through its crossing to integers and back."""
    node = makers.get(name)
    while node is not None and node.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        node = makers.get(node.input[0])
    return node


def _spread(count: int, most: int) -> Iterator[int]:
    if count <= most:
        yield from range(count)
        return
    for at in range(most):
        yield round((at + 1) * count / (most + 1))


def _weighted(node: onnx.NodeProto, constants: frozenset[str]) -> bool:
    return node.op_type in WEIGHTED and any(name in constants for name in node.input[1:])


def _makers(model: onnx.ModelProto) -> Mapping[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output if name}


def _constants(model: onnx.ModelProto) -> frozenset[str]:
    return frozenset(tensor.name for tensor in model.graph.initializer)
