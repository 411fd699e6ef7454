"""What cutting channels means, written into the ORIGINAL graph: nothing is removed, only zeroed.

Every parameter that makes a unit, or belongs to it, becomes zero in place; and before each node
that would read of it what is neither zero nor a constant for its bias, a Where writes zero.
"""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compression import runtime
from compression.pruning import surgery
from compression.pruning.groups import ChannelMap
from compression.regular import equality

Keep = Mapping[str, Collection[int]]
SMALL = 1e-2
"""Differences are relative to the largest value, or to this: a Sigmoid rounds as if it were 1."""


def first_inputs(arrays: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """One run's inputs out of arrays as `np.savez` takes them."""
    feeds: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        if not name.startswith("::"):
            feeds.setdefault(name.split("::")[0], array if "::" in name else array[:1])
    return feeds


def random_units(channels: ChannelMap, *, share: float, seed: int) -> dict[str, list[int]]:
    """Keep about this share of every group, at random."""
    rng = np.random.default_rng(seed)
    return {
        group.id: sorted(
            rng.choice(group.width, max(1, round(group.width * share)), replace=False).tolist()
        )
        for group in channels.groups
    }


class Oracle:
    """Cuts a model and zeroes it, and compares every tensor that both compute."""

    def __init__(
        self,
        model: onnx.ModelProto,
        channels: ChannelMap,
        cases: list[Mapping[str, NDArray[Any]]] | None = None,
    ) -> None:
        self.model = model
        self.channels = channels
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            self.cases = cases or [f for f, _ in equality.ask(path, sample=None, seed=5).cases]

    def gap(self, keep: Keep) -> float:
        """The largest relative difference of any output or activation with channels."""
        kept = surgery.kept_atoms(self.channels, keep)
        zeroed = exposed(masked(self.model, self.channels, keep), self.channels)
        cut = exposed(surgery.cut(self.model, self.channels, keep), self.channels)
        chosen = runtime.options(optimization="disabled")
        sessions = [runtime.session(one, chosen) for one in (zeroed, cut)]
        worst = 0.0
        for feeds in self.cases:
            wanted, got = (runtime.run(session, feeds) for session in sessions)
            for name in sorted(set(wanted) & set(got)):
                values = self._left(name, wanted[name], kept)
                if values is not None:
                    worst = max(worst, apart(values, got[name]))
        return worst

    def moved(self, keep: Keep) -> float:
        """The largest relative difference that zeroing makes to any output."""
        zeroed, feeds = masked(self.model, self.channels, keep), self.cases[0]
        wanted, got = (runtime.run(runtime.session(m), feeds) for m in (self.model, zeroed))
        return max(apart(wanted[name], got[name]) for name in wanted)

    def _left(self, name: str, values: NDArray[Any], kept: NDArray[Any]) -> NDArray[Any] | None:
        """What is left of a tensor; None where channels lie elsewhere for inputs of this shape."""
        for axis, carried in enumerate(self.channels.trace.of(name)):
            if carried is not None and len(carried) != values.shape[axis]:
                return None
            if carried is not None:
                values = np.compress(kept[carried.atoms], values, axis=axis)
        return values


def apart(wanted: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference, relative to the largest value."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return float("inf")
    if not wanted.size or wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(wanted, got) else float("inf")
    same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    gap = np.where(same, 0.0, np.abs(wanted.astype(np.float64) - got))
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=SMALL))
    return float(np.nan_to_num(gap, nan=np.inf).max()) / scale


def exposed(model: onnx.ModelProto, channels: ChannelMap) -> onnx.ModelProto:
    """With every tensor that carries channels as an output too."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name in channels.trace.axes and name not in outputs:
                changed.graph.output.append(onnx.ValueInfoProto(name=name))
    return changed


def masked(model: onnx.ModelProto, channels: ChannelMap, keep: Keep) -> onnx.ModelProto:
    """The original with all units but those in `keep` zeroed."""
    kept = surgery.kept_atoms(channels, keep)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _zero(changed, channels, kept)
    nodes = list(changed.graph.node)
    extra: dict[int, list[onnx.NodeProto]] = {}
    for at, leak in enumerate(channels.trace.leaks):
        stays = kept[leak.channels.atoms]
        if leak.folds or stays.all():
            continue
        node = nodes[leak.node]
        source = node.input[leak.position]
        shape = [1] * len(channels.trace.shape(source))
        shape[leak.axis] = len(stays)
        mask = numpy_helper.from_array(stays.reshape(shape), f"mask.{at}")
        zero = numpy_helper.from_array(np.zeros((), np.float32), f"mask.{at}.zero")
        changed.graph.initializer.extend([mask, zero])
        inputs = [mask.name, source, zero.name]
        extra.setdefault(leak.node, []).append(
            helper.make_node("Where", inputs, [f"mask.{at}.masked"])
        )
        node.input[leak.position] = f"mask.{at}.masked"
    ordered = [n for at, node in enumerate(nodes) for n in [*extra.get(at, ()), node]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del changed.graph.node[:]
    changed.graph.node.extend(copies)
    return changed


def _zero(changed: onnx.ModelProto, channels: ChannelMap, kept: np.ndarray) -> None:
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    for use in channels.trace.uses:
        gone = ~kept[use.channels.atoms]
        if use.role not in {"makes", "follows"} or not gone.any():
            continue
        tensor = tensors[use.initializer]
        array = numpy_helper.to_array(tensor).copy()
        np.moveaxis(array, use.axis, 0)[gone] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
