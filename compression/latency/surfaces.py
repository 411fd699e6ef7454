"""What every layer costs over the widths of what it reads and makes: four points and a surface.

Products grow with both widths, and so do costs but for what does not shrink: a bilinear surface
through the whole layer and its halves. Which kernels a finished variant really has is asked again
before anybody trusts it; this only leads there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from compression.errors import BadModel
from compression.job import PassSpec, Runtime
from compression.latency import kernels, layers
from compression.latency.kernels import Kernels
from compression.latency.layers import Layer
from compression.latency.table import Table
from compression.pruning import costs
from compression.pruning.groups import ChannelMap, Group

HALF = 0.5
SMALL = 0.01
"""A layer of less than this share of all costs is taken to shrink like its products."""
_LEAST = 0.02
"""Of the whole layer's cost, what is left at least."""


@dataclass(frozen=True)
class Surface:
    """One layer's cost in one precision, by the shares of the widths that it reads and makes."""

    whole: float
    read: float
    """What is left of `whole` where only half is read."""
    made: float
    both: float
    shares: tuple[float, float] = (HALF, HALF)
    """What half really is of each."""

    def at(self, reads: float, makes: float) -> float:
        """The cost where these shares of the widths are left."""
        x = (1 - reads) / (1 - self.shares[0])
        y = (1 - makes) / (1 - self.shares[1])
        drop = (1 - self.read) * x + (1 - self.made) * y
        cross = (1 - self.read) + (1 - self.made) - (1 - self.both)
        return self.whole * max(_LEAST, 1 - drop + cross * x * y)


@dataclass(frozen=True)
class Point:
    """A layer at some widths, in one precision, as kernels."""

    layer: int
    widths: tuple[tuple[str, int], ...]
    integers: bool
    kernels: Kernels


class Surfaces:
    """Finds the surfaces of a model's layers, in float and as the passes of a recipe run them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        channels: ChannelMap,
        table: Table,
        *,
        passes: Sequence[PassSpec],
        folder: Path,
        how: Runtime,
        stop: Callable[[], bool],
    ) -> None:
        self.layers = layers.find(channels)
        self._model = model
        self._channels = channels
        self._table = table
        self._passes = tuple(passes)
        self._folder = folder
        self._how = how
        self._stop = stop

    def find(self, total: float) -> dict[tuple[int, bool], Surface]:
        """Return the surface of each layer by its number and whether it runs in integers.

        `total` is what the whole model costs. Layers without an integer form have no such surface;
        those that do not run alone have none.
        """
        whole = self._points(lambda _: [{}])
        self._table.learn(one for point in whole for one in point.kernels.all)
        full = {(p.layer, p.integers): self._table.sum(p.kernels) for p in whole}
        found: dict[tuple[int, bool], Surface] = {}
        large = [key for key, cost in full.items() if cost is not None and cost > SMALL * total]
        large_layers = {number for number, _ in large}
        halves = self._points(lambda number: self._halves(number) if number in large_layers else [])
        self._table.learn(one for point in halves for one in point.kernels.all)
        cut = {(p.layer, p.integers, p.widths): self._table.sum(p.kernels) for p in halves}
        for (number, integers), cost in full.items():
            if cost is not None:
                found[number, integers] = self._surface(number, integers, cost, cut)
        return found

    def _points(self, wanted: Callable[[int], Sequence[Mapping[str, int]]]) -> list[Point]:
        return [
            point
            for number in range(len(self.layers))
            for widths in wanted(number)
            if not self._stop()
            for point in self._point(number, widths)
        ]

    def _point(self, number: int, widths: Mapping[str, int]) -> Iterator[Point]:
        layer = self.layers[number]
        key = tuple(sorted(widths.items()))
        try:
            alone = layers.alone(self._model, self._channels, layer, widths)
            yield Point(number, key, False, self._kernels(alone))
            changed = layers.in_integers(alone, self._passes)
            if changed is not None:
                yield Point(number, key, True, self._kernels(changed))
        except BadModel:  # it reads what cannot be made up
            return

    def _kernels(self, alone: onnx.ModelProto) -> Kernels:
        feeds = layers.feeds(alone)
        return layers.inner(kernels.of(alone, feeds, folder=self._folder, how=self._how))

    def _halves(self, number: int) -> list[dict[str, int]]:
        reads, makes = self._halved(self.layers[number])
        both = [reads | makes] if reads and makes else []
        return [one for one in (reads, makes, *both) if one]

    def _halved(self, layer: Layer) -> tuple[dict[str, int], dict[str, int]]:
        """Half of what is read, and half of what is made, as widths by group."""
        found = []
        for number in (layer.reads, layer.makes):
            group = None if number is None else self._channels.groups[number]
            found.append({} if group is None else {group.id: half(group)})
        return found[0], found[1]

    def _surface(
        self,
        number: int,
        integers: bool,
        cost: float,
        cut: Mapping[tuple[int, bool, tuple[tuple[str, int], ...]], float | None],
    ) -> Surface:
        layer = self.layers[number]
        reads, makes = self._halved(layer)
        shares = (self._share(reads), self._share(makes))

        def left(widths: Mapping[str, int], otherwise: float) -> float:
            seen = cut.get((number, integers, tuple(sorted(widths.items()))))
            return otherwise if seen is None else seen / max(cost, 1e-12)

        read = left(reads, shares[0]) if reads else 1.0
        made = left(makes, shares[1]) if makes else 1.0
        both = left(reads | makes, read * made) if reads and makes else read * made
        return Surface(cost, read, made, both, shares)

    def _share(self, widths: Mapping[str, int]) -> float:
        groups = {group.id: group.width for group in self._channels.groups}
        return min([width / groups[name] for name, width in widths.items()], default=HALF)


def half(group: Group) -> int:
    """The width nearest to half that a group may be cut to."""
    steps = [step for step in costs.steps(group) if step < group.width] or [1]
    return int(min(steps, key=lambda step: abs(step - HALF * group.width)))


def spread(channels: ChannelMap) -> dict[int | None, float]:
    """Which share of all values that other nodes make belongs to each group; None: to none."""
    trace = channels.trace
    sums: dict[int | None, float] = {}
    for at, node in enumerate(trace.graph.node):
        if at in trace.macs:
            continue
        for name in node.output:
            size = float(np.prod(trace.shape(name))) if name else 0.0
            group = layers.carried(channels, name)
            sums[group] = sums.get(group, 0.0) + size
    total = sum(sums.values())
    return {group: size / total for group, size in sums.items()} if total else {None: 1.0}
