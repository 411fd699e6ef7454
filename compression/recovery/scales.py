"""Which scales of a graph in QDQ form learn together, and what its biases hang on (pure)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.recovery.nodes import Node

Arrays = Mapping[str, NDArray[Any]]
Q, DQ = "QuantizeLinear", "DequantizeLinear"
MOVING = (
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Expand",
    "Split", "Resize", "Gather",
)  # fmt: skip
"""Between a DequantizeLinear and a QuantizeLinear of equal scales they are fused away."""


class Scales:
    """The crossings of a graph. `rounded`: 8-bit constants by name, their scale and zero point."""

    def __init__(self, nodes: Sequence[Node], held: Arrays) -> None:
        self._held = held
        self._nodes = nodes
        self._maker = {name: node for node in nodes for name in node.outputs}
        self.rounded: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {}
        readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.reads:
                readers.setdefault(name, []).append(node)
        for node in nodes:
            name = node.inputs[0] if node.operator == DQ else ""
            alone = all(one.operator == DQ for one in readers.get(name, ()))
            if name in held and held[name].dtype.itemsize == 1 and alone:
                self.rounded[name] = _grid(node, held)

    def groups(self, left_out: Collection[str]) -> list[tuple[str, ...]]:
        """The float scales of all crossings; those that must stay equal stand in one group."""
        tied: dict[str, str] = {}

        def root(name: str) -> str:
            while tied.setdefault(name, name) != name:
                name = tied[name]
            return name

        for node in self._nodes:
            if node.operator in {Q, DQ}:
                name = node.inputs[1]
                if name in self._held and name not in left_out:
                    root(name)
        for node in self._nodes:
            for a, b in self._over(node):
                if a in tied and b in tied and np.array_equal(self._held[a], self._held[b]):
                    tied[root(b)] = root(a)
        groups: dict[str, list[str]] = {}
        for name in tied:
            groups.setdefault(root(name), []).append(name)
        return [tuple(group) for group in groups.values()]

    def _over(self, node: Node) -> list[tuple[str, str]]:
        """Pairs of scales before and behind a node that only moves values."""
        if node.operator not in MOVING:
            return []
        before = self._maker.get(node.inputs[0])
        if before is None or before.operator != DQ:
            return []
        behind = [one for one in self._nodes if one.operator == Q and one.inputs[0] in node.outputs]
        return [(before.inputs[1], one.inputs[1]) for one in behind]


class Biases:
    """32-bit biases: their grid is that of the sums they join, scale sx x sw."""

    def __init__(self, nodes: Sequence[Node], held: Arrays) -> None:
        self._held = held
        maker = {name: node for node in nodes for name in node.outputs}
        self.scales: dict[str, tuple[str, str, str]] = {}
        """Of each bias: its own scale, that of its layer's input and that of the weights."""
        for node in nodes:
            if len(node.inputs) < 3:
                continue
            crossings = [maker.get(name) for name in node.inputs[:3]]
            if any(one is None or one.operator != DQ for one in crossings):
                continue
            x, w, b = (one for one in crossings if one is not None)
            if b.inputs[0] in held and held[b.inputs[0]].dtype == np.int32:
                self.scales[b.inputs[0]] = (b.inputs[1], x.inputs[1], w.inputs[1])

    def own_scales(self) -> frozenset[str]:
        """Scales of biases, which follow from others."""
        return frozenset(own for own, _, _ in self.scales.values())

    def settled(self, learned: Arrays) -> dict[str, NDArray[Any]]:
        """Biases and their scales on the grids that were learned; still float."""
        found: dict[str, NDArray[Any]] = {}
        for name, (own, x, w) in self.scales.items():
            before = self._held[own]
            after = np.float32(learned.get(x, self._held[x])) * learned.get(w, self._held[w])
            after = np.asarray(after, np.float32).reshape(before.shape)
            found[own] = after
            found[name] = learned.get(name, self._held[name]) * before / after
        return found


def crossings(
    nodes: Sequence[Node], held: frozenset[str], kept: Collection[str]
) -> tuple[frozenset[int], frozenset[int]]:
    """Where nodes cross to integers and straight back: places of what goes there, and what returns.

    `held` are scales and zero points of one value each, `kept` tensors that are asked for.
    """
    readers: dict[str, list[int]] = {}
    for at, node in enumerate(nodes):
        for name in node.reads:
            readers.setdefault(name, []).append(at)
    there, back = set[int](), set[int]()
    for at, node in enumerate(nodes):
        plain = node.operator == Q and held.issuperset(node.inputs[1:])
        if not plain or node.outputs[0] in kept or set(node.attributes) - {"axis"}:
            continue
        behind = readers.get(node.outputs[0], [])
        if all(nodes[n].operator == DQ and nodes[n].inputs[1:] == node.inputs[1:] for n in behind):
            there.add(at)
            back.update(behind)
    return frozenset(there), frozenset(back)


def _grid(node: Node, held: Arrays) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and zero point so that they meet the axis of what they belong to; float32."""
    values, scale = held[node.inputs[0]], held[node.inputs[1]]
    zero = held[node.inputs[2]] if len(node.inputs) > 2 else np.zeros((), np.int8)
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(-1)[:1].reshape(()).astype(np.float32)
    axis = node.get("axis", 1) % values.ndim
    shape = [-1 if at == axis else 1 for at in range(values.ndim)]
    return scale.reshape(shape), zero.reshape(shape).astype(np.float32)
