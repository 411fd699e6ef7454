"""Channels as atoms: what must be cut together is tied, what must stay is frozen with a reason.

An atom stands for one channel of one axis. Ties are kept as pairs and resolved once, by hooking
and pointer jumping (Shiloach and Vishkin, "An O(log n) parallel connectivity algorithm", 1982),
which numpy does for all atoms at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels along one axis of a tensor.

    `atoms` is int64 [n]. `rest` is float64 [n]: what each holds once its unit is cut, where that
    is a constant; NaN where it is not.
    """

    atoms: Array
    rest: Array

    def __len__(self) -> int:
        return len(self.atoms)

    def take(self, positions: Any) -> "Channels":
        """The channels at `positions`, which may repeat."""
        return Channels(self.atoms[positions], self.rest[positions])

    def resting(self, rest: Any) -> "Channels":
        """The same channels, holding something else once they are cut."""
        return replace(self, rest=np.broadcast_to(np.asarray(rest, np.float64), (len(self),)))


def joined(parts: Sequence[Channels]) -> Channels:
    """Several axes behind one another."""
    return Channels(
        np.concatenate([part.atoms for part in parts]),
        np.concatenate([part.rest for part in parts]),
    )


class Ties:
    """Which atoms belong together, and which must stay."""

    def __init__(self) -> None:
        self._count = 0
        self._pairs: list[tuple[Array, Array]] = []
        self._frozen: list[tuple[Array, str]] = []

    def new(self, count: int) -> Channels:
        """Channels of their own; each is nothing once it is cut."""
        first, self._count = self._count, self._count + count
        return Channels(np.arange(first, self._count), np.zeros(count))

    def frozen(self, count: int, reason: str) -> Channels:
        """Channels that stay."""
        channels = self.new(count)
        self.freeze(channels, reason)
        return channels

    def tie(self, a: Channels | Array, b: Channels | Array) -> None:
        """Cut the channels of `a` and `b` together, position by position."""
        one, other = (x.atoms if isinstance(x, Channels) else x for x in (a, b))
        if len(one) != len(other):
            raise ValueError(f"cannot tie {len(one)} channels to {len(other)}")
        self._pairs.append((one, other))

    def freeze(self, channels: Channels | None, reason: str) -> None:
        """Keep channels. The first reason given for a unit is the one that is reported."""
        if channels is not None and len(channels):
            self._frozen.append((channels.atoms, reason))

    def resolved(self) -> tuple[Array, dict[int, str]]:
        """For each atom the least atom of its unit, int64 [atoms]; and why units are frozen."""
        roots = np.arange(self._count)
        if self._pairs:
            a = np.concatenate([pair[0] for pair in self._pairs])
            b = np.concatenate([pair[1] for pair in self._pairs])
            while True:
                before = roots.copy()
                ra, rb = roots[a], roots[b]
                np.minimum.at(roots, ra, rb)
                np.minimum.at(roots, rb, ra)
                roots = roots[roots]
                if np.array_equal(before, roots):
                    break
        reasons: dict[int, str] = {}
        for atoms, reason in self._frozen:
            for root in np.unique(roots[atoms]).tolist():
                reasons.setdefault(root, reason)
        return roots, reasons
