"""How much each output of a reader counts: as much as the layers that read it make of it (pure).

By its own energy alone an output counts that hardly anybody hears, and one with small numbers that
decides what comes next does not. It is one step of what Yu et al. propagate through a whole network
("NISP: Pruning Networks using Neuron Importance Score Propagation", CVPR 2018).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compression.pruning.groups import ChannelMap, Slot
from compression.pruning.ordering import Reader
from compression.pruning.readers import Seen

Floats = NDArray[np.float64]
_LEAST = 1e-6
"""Of the mean: an output that hardly changes is not blown up further."""


@dataclass(frozen=True)
class Heard:
    """Outputs of a layer that carry a group: `slot` says which, and `shares` float64 [width] which
    share of what the group's readers sum comes from each unit."""

    slot: Slot
    shares: Floats


Makers = Mapping[tuple[str, str], Sequence[Heard]]
"""By the node of a layer and its initializer."""


def makers(
    channels: ChannelMap, seen: Mapping[str, Sequence[Seen]], *, shifting: Collection[str]
) -> Makers:
    """Return how much is heard of what each layer makes; `shifting` are nodes that can have a bias.

    A group of which no reader says anything is left out.
    """
    found: dict[tuple[str, str], list[Heard]] = {}
    for group in channels.groups:
        shares = list(_shares(group.width, seen[group.id], shifting))
        if shares:
            for slot in group.producers:
                heard = Heard(slot, np.asarray(np.mean(shares, axis=0)))
                found.setdefault((slot.node, slot.initializer), []).append(heard)
    return found


def _shares(width: int, readers: Sequence[Seen], shifting: Collection[str]) -> Iterator[Floats]:
    for one in readers:
        powers = np.diag(one.gram)
        if one.slot.node not in shifting:
            powers = powers + one.mean**2
        sums = np.maximum(powers, 0) * np.square(one.weights).sum(1)
        mine = one.units >= 0
        units = np.bincount(one.units[mine], sums[mine], minlength=width)
        if np.isfinite(units).all() and units.sum() > 0:
            yield units / units.sum()


def weighed(one: Seen, reader: Reader, known: Makers) -> Reader:
    """Return a reader each of whose outputs has the energy that it counts with.

    Outputs that carry a group have as much together as before; those that carry none stay.
    """
    heard = known.get((one.slot.node, one.slot.initializer), ())
    if not heard or one.groups > 1 or not np.isfinite(np.trace(reader.gram)):
        return reader
    energies = ((reader.gram @ reader.weights) * reader.weights).sum(0)
    factors = np.ones(len(energies))
    for each in heard:
        if each.slot.axis != one.axis:
            units = _units(one, each.slot)
            mine = units >= 0
            factors[mine] = _factors(np.maximum(energies[mine], 0), units[mine], each.shares)
    return replace(reader, weights=reader.weights * np.sqrt(factors))


def _units(one: Seen, slot: Slot) -> NDArray[np.int64]:
    """The unit of each output of a reader, int64 [outputs], or -1."""
    shape = np.ones(len(one.shape) - 1, int)
    shape[slot.axis - (slot.axis > one.axis)] = -1
    spread = np.broadcast_to(slot.units.reshape(shape), one.shape[1:])
    return np.tile(spread.reshape(-1), one.places)


def _factors(energies: Floats, units: NDArray[np.int64], shares: Floats) -> Floats:
    """By what to multiply energies so that those of each unit add up to its share of all."""
    total = float(energies.sum())
    held = np.bincount(units, energies, minlength=len(shares))
    wanted = shares / np.maximum(held, max(_LEAST * total / len(shares), 1e-300))
    reached = float(wanted @ held)
    if not np.isfinite(total) or total <= 0 or not 0 < reached < np.inf:
        return np.ones(len(energies))
    return np.asarray((wanted * (total / reached))[units])
