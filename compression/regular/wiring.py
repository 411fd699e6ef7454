"""Who makes and who reads each tensor of a graph, and how its nodes are taken out."""

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import bodies


class Wires:
    """Who makes and reads each tensor, and what is constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output if name}
        self.readers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        self.fixed = {value.name for value in model.graph.output}
        """Names that must stay: outputs, and what bodies capture."""
        for node in model.graph.node:
            self.fixed |= bodies.captured(node)
            for name in set(node.input) - {""}:
                self.readers[name].append(node)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer."""
        tensor = self.tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def only_reader(self, name: str) -> bool:
        """Whether one node reads `name`, and nobody else sees it."""
        return len(self.readers[name]) == 1 and name not in self.fixed

    def renew(self, node: onnx.NodeProto, position: int, value: NDArray[Any]) -> None:
        """Give a node an initializer of its own at one input."""
        name = f"{node.output[0]}.folded.{position}"
        while name in self.tensors:  # folded more than once
            name += "'"
        tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
        self.graph.initializer.append(tensor)
        self.tensors[name] = tensor
        self.readers[name] = [node]
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = name

    def drop(self, node: onnx.NodeProto) -> None:
        """Remove a node whose readers have been turned elsewhere."""
        self.graph.node.remove(node)

    def bypass(self, node: onnx.NodeProto) -> bool:
        """Have everybody read the node's input instead of its output; False where none may."""
        source, target = node.input[0], node.output[0]
        if target in self.fixed:
            return self._renamed(source, target)
        for reader in self.readers.pop(target, []):
            for at, name in enumerate(reader.input):
                if name == target:
                    reader.input[at] = source
            if reader not in self.readers[source]:
                self.readers[source].append(reader)
        return True

    def _renamed(self, source: str, target: str) -> bool:
        """Have the maker of `source` write `target` itself."""
        maker = self.maker.get(source)
        if maker is None or not self.only_reader(source):
            return False
        maker.output[list(maker.output).index(source)] = target
        self.maker[target] = maker
        return True


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """The value of an attribute; None where it is not there."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return None


def put(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set an attribute."""
    for attribute in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))
