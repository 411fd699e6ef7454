"""The shape of every tensor in one run, found without holding the tensors themselves."""

from collections.abc import Mapping
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from compression import bodies, runtime

_NOT_TENSORS = frozenset(
    {"SequenceEmpty", "SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceMap",
     "SplitToSequence", "Optional", "ZipMap", "DictVectorizer", "CastMap"}
)  # fmt: skip
_MARK = "::shape"


def seen(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """Run once and return the shape of each tensor by name, constants and inputs among them.

    A Shape node behind each tensor is all that leaves the run, so that activations are freed as
    usual. Tensors that are no tensors (sequences, maps) are left out.

    Raises:
        BadModel: the model does not run on `feeds`.
    """
    probe = onnx.ModelProto(ir_version=model.ir_version)
    probe.opset_import.extend(model.opset_import)
    probe.functions.extend(model.functions)
    graph = probe.graph
    graph.name = "shapes"
    graph.input.extend(model.graph.input)
    graph.initializer.extend(model.graph.initializer)
    graph.node.extend(model.graph.node)
    made = [
        name
        for node in model.graph.node
        if node.op_type not in _NOT_TENSORS
        for name in node.output
        if name
    ]
    for name in made:
        graph.node.append(helper.make_node("Shape", [name], [name + _MARK]))
        kind = onnx.TensorProto.INT64
        graph.output.append(helper.make_tensor_value_info(name + _MARK, kind, [None]))
    chosen = runtime.options(optimization="disabled")
    chosen.add_session_config_entry("session.disable_prepacking", "1")
    found = runtime.run(runtime.session(probe, chosen), feeds)
    shapes = {name: tuple(int(dim) for dim in found[name + _MARK]) for name in made}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return shapes | {name: tuple(array.shape) for name, array in feeds.items()}


def captured_by(node: onnx.NodeProto) -> set[str]:
    """Names that the bodies of an If, Loop or Scan may read from the graph around them."""
    return bodies.captured(node)
