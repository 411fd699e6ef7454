"""Gives a finished variant short names: in a small model, names weigh as much as the weights.

What others hold on to keeps its name: the inputs and outputs of the model, and its metadata. Equal
constants become one: rewriting leaves many that are all zeros or ones.
"""

from collections import Counter
from collections.abc import Iterator

import onnx

from compression import bodies

_DIGITS = "abcdefghijklmnopqrstuvwxyz"


def shorten(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same model with short names inside, each constant once, no notes nobody reads.

    A model with functions of its own is returned as it is.
    """
    if model.functions:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = {one.name for one in (*changed.graph.input, *changed.graph.output)}
    same = _merge(changed.graph, kept)
    names = {"": ""} | {name: name for name in kept}
    fresh = _fresh(kept)
    for graph in bodies.graphs(changed.graph):
        for name in _made(graph):
            if name not in names:
                names[name] = next(fresh)
    names |= {name: names[first] for name, first in same.items()}
    for graph in bodies.graphs(changed.graph):
        _rename(graph, names)
    return changed


def _merge(graph: onnx.GraphProto, kept: set[str]) -> dict[str, str]:
    """Take out constants that equal an earlier one; returns which one stands for each."""
    made = Counter(name for each in bodies.graphs(graph) for name in _made(each))
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name in kept or made[tensor.name] > 1 or not tensor.raw_data:
            continue  # elsewhere the name may mean something else
        content = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if (earlier := first.setdefault(content, tensor.name)) != tensor.name:
            same[tensor.name] = earlier
    for at in reversed(range(len(graph.initializer))):
        if graph.initializer[at].name in same:
            del graph.initializer[at]
    return same


def _made(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that come about in a graph; equal names in two bodies get the same new one."""
    yield from (one.name for one in graph.input)
    yield from (one.name for one in graph.initializer)
    yield from (one.values.name for one in graph.sparse_initializer)
    for node in graph.node:
        yield from node.output


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.name = ""
        node.doc_string = ""
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
    for tensor in graph.initializer:
        tensor.name = names[tensor.name]
        tensor.doc_string = ""
    for sparse in graph.sparse_initializer:
        sparse.values.name = names[sparse.values.name]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
    del graph.value_info[:]
    del graph.quantization_annotation[:]


def _fresh(taken: set[str]) -> Iterator[str]:
    """Names of one letter, then of two, and so on, without those that are taken."""
    length_one = [""]
    while True:
        length_one = [start + letter for start in length_one for letter in _DIGITS]
        yield from (name for name in length_one if name not in taken)
