"""Carries channels along the axes of every tensor of a graph, from the weights that make them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.pruning import sizes
from compression.pruning.edits import Edit, Leak
from compression.pruning.ties import Channels, Ties

Array = NDArray[Any]
Axes = tuple[Channels | None, ...]
Role = Literal["makes", "follows", "beside", "reads"]
Signature = tuple[tuple[int, ...], tuple[int, ...], int]
"""How a Reshape splits an axis: the dims that it takes, those that it makes, and which is split."""


@dataclass(frozen=True, eq=False)
class Use:
    """One axis of an initializer, as one node uses it."""

    initializer: str
    axis: int
    role: Role
    node: int
    position: int
    channels: Channels
    tensor: str
    """The activation that is read, or made."""


class Trace:
    """What is known while walking a graph once, and the words in which rules say it.

    `choices` says at which of its candidates a Reshape that splits channels cuts them.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        shapes: Mapping[str, tuple[int, ...]],
        choices: Mapping[Signature, int],
    ) -> None:
        self.graph = model.graph
        self.opset = max((e.version for e in model.opset_import if e.domain == ""), default=1)
        self.shapes = shapes
        self.choices = choices
        self.open: dict[Signature, int] = {}
        self.ties = Ties()
        self.axes: dict[str, Axes] = {}
        self.extents: dict[str, Axes] = {}
        """Vectors of whole numbers that are read off shapes: which entries are counts."""
        self.uses: list[Use] = []
        self.edits: list[Edit] = []
        self.leaks: list[Leak] = []
        self.macs: dict[int, int] = {}
        self.joins: dict[int, list[Channels]] = defaultdict(list)
        """Products of two activations, by node, with the channels that they run over."""
        self.readers: defaultdict[str, list[int]] = defaultdict(list)
        self.maker: dict[str, str] = {}
        self.at = 0
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._values: dict[str, Array] = {}
        for at, node in enumerate(self.graph.node):
            for name in node.input:
                self.readers[name].append(at)
            self.maker |= dict.fromkeys(node.output, node.op_type)

    def walk(self, rule: Callable[["Trace", onnx.NodeProto], None]) -> None:
        """Apply `rule` to each node; then what the outside or a body can see is frozen."""
        for at, node in enumerate(self.graph.node):
            self.at = at
            rule(self, node)
        for value in self.graph.output:
            self.freeze(value.name, "reaches a graph output")
        captured = {name for node in self.graph.node for name in sizes.captured_by(node)}
        for name in captured:
            self.freeze(name, "is captured by a body")
        fixed = captured | {value.name for value in self.graph.output}
        self._shared(fixed)

    def is_constant(self, name: str) -> bool:
        """Whether `name` is an initializer, or left out."""
        return not name or name in self._tensors

    def constant(self, name: str) -> Array | None:
        """The value of an initializer."""
        if name not in self._values and name in self._tensors:
            self._values[name] = numpy_helper.to_array(self._tensors[name])
        return self._values.get(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the run; of what is no tensor, ()."""
        return self.shapes.get(name, ())

    def of(self, name: str) -> Axes:
        """The channels along each axis of an activation."""
        return self.axes.get(name) or (None,) * len(self.shape(name))

    def put(self, name: str, axes: Axes) -> None:
        """Say which channels a tensor carries; of a single one there is nothing to cut."""
        for axis in axes:
            if axis is not None and len(axis) < 2:
                self.ties.freeze(axis, "is a single channel")
        kept = tuple(None if axis is None or len(axis) < 2 else axis for axis in axes)
        if any(axis is not None for axis in kept):
            self.axes[name] = kept

    def freeze(self, name: str, reason: str) -> None:
        """Keep everything that a tensor carries."""
        for axis in (*self.of(name), *self.extents.get(name, ())):
            self.ties.freeze(axis, reason)

    def use(
        self, node: onnx.NodeProto, position: int, axis: int, role: Role, channels: Channels
    ) -> None:
        """An initializer carries channels along one axis."""
        name = node.input[position]
        tensor = node.input[0] if role == "reads" else node.output[0]
        axis %= len(self.shape(name))
        self.uses.append(Use(name, axis, role, self.at, position, channels, tensor))

    def reads(
        self,
        node: onnx.NodeProto,
        position: int,
        axis: int,
        channels: Channels,
        *,
        source: tuple[int, int],
        folds: bool = False,
        out: Channels | None = None,
    ) -> None:
        """A node sums over channels with the weights at `position`; `source` is (input, axis)."""
        self.use(node, position, axis, "reads", channels)
        self.leak(*source, channels, folds=folds, out=out)

    def leak(
        self,
        position: int,
        axis: int,
        channels: Channels,
        *,
        folds: bool = False,
        out: Channels | None = None,
    ) -> None:
        """Note what a node would still read of channels that are cut."""
        if (channels.rest != 0).any():
            known = bool(np.isfinite(channels.rest).all())
            self.leaks.append(Leak(self.at, position, axis, channels, folds and known, out))

    def _shared(self, fixed: set[str]) -> None:
        """An initializer is cut for all of its readers, or for none."""
        seen: defaultdict[tuple[str, int], list[Use]] = defaultdict(list)
        for use in self.uses:
            seen[use.initializer, use.axis].append(use)
        for (name, _axis), uses in seen.items():
            for use in uses[1:]:
                if len(use.channels) == len(uses[0].channels):
                    self.ties.tie(uses[0].channels, use.channels)
            places = {(use.node, use.position) for use in uses}
            if len(places) < len(self.readers[name]) or name in fixed:
                for use in uses:
                    self.ties.freeze(use.channels, "has weights that others read otherwise")
