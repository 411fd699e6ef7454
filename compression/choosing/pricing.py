"""The problem of widths and precisions: what each option of each group costs and loses (pure).

A part is a channel group, with the layers that make it; or a layer that makes none. Its options are
widths, each in float and in integers. A layer that reads one group and makes another is a pair of
them, and so is a tensor between layers of different precision, which has to cross.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compression.choosing.allocation import Pair, Part, Problem
from compression.choosing.options import Facts, GroupFacts, Option, Priced
from compression.latency.layers import Layer
from compression.latency.surfaces import Surface

Floats = NDArray[np.float64]
SHARES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2)
"""Of a group's width: the options, each at the nearest width that it may be cut to."""
_LEAST_LOSS = 1e-7
_MOST_LOSS = 1e6


def price(facts: Facts) -> Priced:
    """Return the problem whose time is the whole model's cost, and whose size is its constants."""
    made: defaultdict[int | None, list[int]] = defaultdict(list)
    for number, layer in enumerate(facts.layers):
        made[layer.makes].append(number)
    sums = _Sums(facts, _order(facts, made))
    sums.lose()
    for at, (_, layers) in enumerate(sums.parts):
        for number in layers:
            sums.add(number, at)
    sums.rest()
    groups = tuple(None if group is None else facts.groups[group].id for group, _ in sums.parts)
    layers_of = tuple(tuple(layers) for _, layers in sums.parts)
    return Priced(sums.problem(), groups, layers_of, sums.options)


_Parts = list[tuple[int | None, list[int]]]


def _order(facts: Facts, made: Mapping[int | None, list[int]]) -> _Parts:
    """Parts in the order of the graph: groups by the first layer that makes them."""
    parts: _Parts = [(group, made.get(group, [])) for group in range(len(facts.groups))]
    parts += [(None, [number]) for number in made.get(None, [])]
    late = len(facts.layers)
    return sorted(parts, key=lambda one: min(one[1], default=late))


def _options(facts: Facts, group: int | None, layers: Sequence[int]) -> tuple[Option, ...]:
    """Widths in both precisions; integers only where some layer of the part has them."""
    integers = [False]
    if any((number, True) in facts.surfaces for number in layers):
        integers.append(True)
    widths = [1]
    if group is not None:
        one = facts.groups[group]
        widths = [one.width]
        if one.losses:
            near = {min(one.steps, key=lambda step: abs(step - s * one.width)) for s in SHARES}
            widths = sorted(near | {one.width}, reverse=True)
    return tuple(Option(width, kind) for width in widths for kind in integers)


class _Sums:
    """Terms while they are added up."""

    def __init__(self, facts: Facts, parts: _Parts) -> None:
        self.parts = parts
        self.options = tuple(_options(facts, group, layers) for group, layers in parts)
        self._facts = facts
        self._where = {group: at for at, (group, _) in enumerate(parts) if group is not None}
        self._error = [np.zeros(len(one)) for one in self.options]
        self._time = [np.zeros(len(one)) for one in self.options]
        self._size = [np.zeros(len(one)) for one in self.options]
        self._pairs: dict[tuple[int, int], Pair] = {}
        self._scale = {kind: self._scaled(kind, whole) for kind, whole in facts.whole.items()}

    def problem(self) -> Problem:
        """All that was added."""
        terms = zip(self._error, self._time, self._size, strict=True)
        return Problem(tuple(Part(*each) for each in terms), self._pairs)

    def lose(self) -> None:
        """Losses of cuts; and of rounding, by each layer's share of the products."""
        products = max(1, sum(layer.products for layer in self._facts.layers))
        for at, (group, layers) in enumerate(self.parts):
            if group is not None and self._facts.groups[group].losses:
                self._error[at] += _curve(self._facts.groups[group], self.options[at])
            share = sum(self._facts.layers[number].products for number in layers) / products
            kinds = self._kinds(at)
            self._error[at] += np.where(kinds, self._facts.rounding_loss * share, 0.0)

    def add(self, number: int, at: int) -> None:
        """Add one layer: to its own part, or to the pair with the part that it reads."""
        layer = self._facts.layers[number]
        other = None if layer.reads is None else self._where[layer.reads]
        makes, kinds = self._shares(at), self._kinds(at)
        reads = np.ones(1) if other is None else self._shares(other)
        each = list(zip(makes, kinds, strict=True))
        time = np.array([[self._cost(number, bool(k), r, m) for m, k in each] for r in reads])
        size = self._facts.elements.get(number, 0) * np.outer(reads, makes)
        if other is None:
            self._time[at] += time[0]
            self._size[at] += size[0]
            return
        apart = self._kinds(other)[:, None] != kinds[None, :]
        time = time + apart * reads[:, None] * self._read_values(layer) * self._facts.crossing
        key = (min(at, other), max(at, other))
        found = Pair(time, size) if other < at else Pair(time.T, size.T)
        known = self._pairs.get(key)
        if known is not None:
            found = Pair(known.time + found.time, known.size + found.size)
        self._pairs[key] = found

    def rest(self) -> None:
        """What no layer costs is spread over the groups by how much of the values they carry."""
        count = range(len(self._facts.layers))
        left = {
            kind: max(0.0, whole - sum(self._cost(number, kind, 1.0, 1.0) for number in count))
            for kind, whole in self._facts.whole.items()
        }
        carried = sum(group.spread for group in self._facts.groups)
        # What belongs to no group stays, whatever is cut.
        fixed = max(0.0, 1.0 - carried) / max(1, len(self.parts))
        for at, (group, _) in enumerate(self.parts):
            own = 0.0 if group is None else self._facts.groups[group].spread
            rests = [left.get(bool(kind), left.get(False, 0.0)) for kind in self._kinds(at)]
            self._time[at] += np.array(rests) * (own * self._shares(at) + fixed)

    def _shares(self, at: int) -> Floats:
        """The share of the whole width that each option of a part leaves."""
        group = self.parts[at][0]
        width = 1 if group is None else self._facts.groups[group].width
        return np.array([one.width / width for one in self.options[at]])

    def _kinds(self, at: int) -> NDArray[np.bool_]:
        return np.array([one.integers for one in self.options[at]])

    def _surface(self, number: int, kind: bool) -> Surface | None:
        surfaces = self._facts.surfaces
        return surfaces.get((number, kind)) or surfaces.get((number, False))

    def _cost(self, number: int, kind: bool, read: float, make: float) -> float:
        surface = self._surface(number, kind)
        return surface.at(read, make) * self._scale.get(kind, 1.0) if surface else 0.0

    def _scaled(self, kind: bool, whole: float) -> float:
        """What makes layers alone cost no more together than the model that they are part of."""
        found = [self._surface(number, kind) for number in range(len(self._facts.layers))]
        alone = sum(one.whole for one in found if one is not None)
        return min(1.0, whole / alone) if alone > 0 else 1.0

    def _read_values(self, layer: Layer) -> int:
        """How many values a layer reads: the most that a layer makes of what it reads."""
        facts = self._facts
        made = [n for n, one in enumerate(facts.layers) if one.makes == layer.reads]
        return max((facts.values.get(number, 0) for number in made), default=0)


def _curve(group: GroupFacts, options: Sequence[Option]) -> Floats:
    """What is lost at each width: between levels a line, up to the first a square."""
    cut = 1 - np.array([one.width for one in options]) / group.width
    losses = np.clip(np.asarray(group.losses, float), _LEAST_LOSS, _MOST_LOSS)
    slope = (losses[-1] - losses[-2]) / (group.levels[-1] - group.levels[-2])
    end = losses[-1] + 2 * max(slope, 0.0) * (1 - group.levels[-1])
    found: Floats = np.interp(cut, [0, *group.levels, 1], [0, *losses, end])
    early = cut < group.levels[0]
    found[early] = losses[0] * (cut[early] / group.levels[0]) ** 2
    return found
