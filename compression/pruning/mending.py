"""Carries out what hangs on channels that are cut: counts, shapes, positions, biases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression.pruning import edits
from compression.pruning.tracing import Trace
from compression.regular.wiring import attribute, put

Array = NDArray[Any]


class Bench:
    """A graph on which nodes are mended; nodes that are added stand before or behind one."""

    def __init__(self, changed: onnx.ModelProto, trace: Trace, kept: Array) -> None:
        self.graph = changed.graph
        self.trace = trace
        self.kept = kept
        self.nodes = list(changed.graph.node)
        self.before: dict[int, list[onnx.NodeProto]] = {}
        self.behind: dict[int, list[onnx.NodeProto]] = {}
        self._taken = {name for node in self.nodes for name in node.output}
        self._taken |= {tensor.name for tensor in self.graph.initializer}
        self._taken |= {value.name for value in self.graph.input}

    def left(self, atoms: Array) -> int:
        """How many of these channels stay."""
        return int(self.kept[atoms].sum())

    def touched(self, atoms: Array) -> bool:
        """Whether one of these channels goes."""
        return not bool(self.kept[atoms].all())

    def name(self, wish: str) -> str:
        """A name that nothing has yet."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}.{count}"
        self._taken.add(name)
        return name

    def constant(self, node: onnx.NodeProto, position: int, value: Array) -> None:
        """Give a node a constant of its own at one input."""
        name = self.name(f"{node.output[0]}.cut.{position}")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = name


def mend(changed: onnx.ModelProto, trace: Trace, kept: Array) -> None:
    """Carry out every note of a trace whose channels are cut, in place."""
    bench = Bench(changed, trace, kept)
    for edit in trace.edits:
        _MENDERS[type(edit)](bench, edit)
    for leak in trace.leaks:
        if leak.folds and bench.touched(leak.channels.atoms):
            _fold(bench, leak)
    nodes: list[onnx.NodeProto] = []
    for at, node in enumerate(bench.nodes):
        nodes += [*bench.before.get(at, ()), node, *bench.behind.get(at, ())]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(copies)


def _widths(bench: Bench, edit: edits.Widths) -> None:
    """Constant vectors are written anew; over computed ones the counts are laid."""
    stale = edit.source is not None and bench.touched(edit.source)
    cut = [(at, atoms) for at, atoms in edit.entries if stale or bench.touched(atoms)]
    if not cut:
        return
    node = bench.nodes[edit.node]
    name = node.input[edit.position]
    value = bench.trace.constant(name)
    if value is not None:
        value = value.copy()
        for at, atoms in cut:
            value[at] = bench.left(atoms)
        bench.constant(node, edit.position, value)
        return
    counts = np.zeros(bench.trace.shape(name), np.int64)
    for at, atoms in cut:
        counts[at] = bench.left(atoms)
    where = helper.make_node("Where", ["", "", name], [bench.name(f"{node.output[0]}.counts")])
    bench.constant(where, 0, counts > 0)
    bench.constant(where, 1, counts)
    bench.before.setdefault(edit.node, []).append(where)
    node.input[edit.position] = where.output[0]


def _parts(bench: Bench, edit: edits.Parts) -> None:
    if not any(bench.touched(atoms) for atoms in edit.parts):
        return
    node = bench.nodes[edit.node]
    lengths = [bench.left(atoms) for atoms in edit.parts]
    for one in [a for a in node.attribute if a.name in {"split", "num_outputs"}]:
        node.attribute.remove(one)
    if bench.trace.opset < 13:  # the sizes became an input in opset 13
        put(node, "split", lengths)
    else:
        bench.constant(node, 1, np.array(lengths, np.int64))


def _count(bench: Bench, edit: edits.Count) -> None:
    if bench.touched(edit.atoms):
        put(bench.nodes[edit.node], edit.attribute, bench.left(edit.atoms))


def _positions(bench: Bench, edit: edits.Positions) -> None:
    if not bench.touched(edit.source):
        return
    node = bench.nodes[edit.node]
    stays = bench.kept[edit.source]
    moved = (np.cumsum(stays) - 1)[edit.indices[stays[edit.indices]]]
    if node.op_type == "Slice":
        node.op_type = "Gather"
        del node.input[1:]
        put(node, "axis", edit.axis)
    bench.constant(node, 1, moved.astype(np.int64))


def _zero_state(bench: Bench, edit: edits.ZeroState) -> None:
    if bench.touched(edit.atoms):
        bench.nodes[edit.node].input[edit.position] = ""


def _fold(bench: Bench, leak: edits.Leak) -> None:
    """Constants that a node read of channels now gone go into its bias."""
    node, trace = bench.nodes[leak.node], bench.trace
    old = trace.graph.node[leak.node]
    weight = trace.constant(old.input[1])
    assert weight is not None
    gone = ~bench.kept[leak.channels.atoms]
    weight = weight.astype(np.float64)
    if node.op_type == "Conv":
        weight = weight.sum(tuple(range(2, weight.ndim)))
    elif not attribute(node, "transB"):
        weight = weight.T
    added = weight[:, gone] @ leak.channels.rest[gone]
    bias = trace.constant(old.input[2]) if len(old.input) > 2 else None
    alpha, beta = (1.0 if (a := attribute(node, k)) is None else a for k in ("alpha", "beta"))
    total = added * alpha + (0.0 if bias is None else bias.reshape(-1).astype(np.float64) * beta)
    if leak.out is not None:
        total = total[bench.kept[leak.out.atoms]]
    if node.op_type != "MatMul":
        if node.op_type == "Gemm":
            put(node, "beta", 1.0)
        bench.constant(node, 2, total.astype(np.float32))
        return
    sum_ = helper.make_node("Add", [bench.name(f"{node.output[0]}.unbiased"), ""], [node.output[0]])
    bench.constant(sum_, 1, total.astype(np.float32))
    node.output[0] = sum_.input[0]
    bench.behind.setdefault(leak.node, []).append(sum_)


_MENDERS: dict[type, Callable[[Bench, Any], None]] = {
    edits.Widths: _widths,
    edits.Parts: _parts,
    edits.Count: _count,
    edits.Positions: _positions,
    edits.ZeroState: _zero_state,
}
