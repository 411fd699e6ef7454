"""What lies inside a node: the branches of an If, the body of a Loop or Scan."""

from collections.abc import Iterator

import onnx


def of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds itself."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies inside it, however deep."""
    yield graph
    for node in graph.node:
        for body in of(node):
            yield from graphs(body)


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the bodies inside it, each before what it holds."""
    for node in graph.node:
        yield node
        for body in of(node):
            yield from nodes(body)


def captured(node: onnx.NodeProto) -> set[str]:
    """Every name that the bodies inside a node read or give: some are of the graph around it."""
    names: set[str] = set()
    for body in of(node):
        for inner in graphs(body):
            names |= {name for one in inner.node for name in one.input}
            names |= {value.name for value in inner.output}
    return names
