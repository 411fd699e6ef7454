"""How many products are left of a model when units are cut: exact, before anything is cut."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.pruning.groups import UNITS, ChannelMap, Group

STEP = 8
"""Kernels work on so many channels at a time: other widths cost as much as the next one."""
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_NARROW = 32
"""Groups of fewer channels are cut in finer steps: eight of them would be too much at once."""


class Costs:
    """Counts products of one sample, as `ChannelMap.macs` does, for any widths of the groups."""

    def __init__(self, channels: ChannelMap) -> None:
        self._terms: list[tuple[float, tuple[NDArray[np.float64], ...]]] = []
        count = len(channels.groups)
        trace = channels.trace
        for node, macs in trace.macs.items():
            sums = trace.graph.node[node]
            # A recurrence multiplies with two matrices: for what it reads and for what it holds.
            names = sums.input[1 : 3 if sums.op_type in _RECURRENT else 2]
            sizes = [math.prod(trace.shape(name)) for name in names]
            for name, size in zip(names, sizes, strict=True):
                axes = {
                    use.axis: use.channels.atoms
                    for use in trace.uses
                    if use.node == node and use.initializer == name
                }
                spans = [*axes.values(), *(one.atoms for one in trace.joins.get(node, ()))]
                shares = tuple(_share(channels.unit_of[atoms], count) for atoms in spans)
                part = macs * size / max(1, sum(sizes))
                self._terms.append((part, tuple(one for one in shares if one[:-1].any())))
        self.total = float(channels.macs)
        self._widths = np.array([group.width for group in channels.groups], np.float64)

    def left(self, widths: NDArray[Any]) -> float:
        """The share of products left where groups have these widths, int64 [groups]."""
        kept = np.append(np.asarray(widths, np.float64) / self._widths, 1.0)
        return sum(
            macs * math.prod(float(share @ kept) for share in shares)
            for macs, shares in self._terms
        ) / max(1.0, self.total)  # fmt: skip


def _share(units: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Which share of an axis belongs to each group, and at last to none: float64 [groups + 1]."""
    number = np.where(units < 0, groups, units // UNITS)
    return np.bincount(number, minlength=groups + 1) / max(1, len(units))


def steps(group: Group) -> tuple[int, ...]:
    """The widths, the widest first, that a group may be cut to: multiples of `STEP` channels.

    Narrow groups, and those whose units are many channels, are cut unit by unit; a quarter of an
    eighth of each stays.
    """
    size = STEP if group.unit_size == 1 and group.width >= _NARROW else 1
    least = max(size, math.ceil(group.width / _NARROW))
    first = group.width - 1 if group.width % size == 0 else group.width
    return (group.width, *range(first // size * size, least - 1, -size))
