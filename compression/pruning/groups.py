"""What can be cut: groups of units alike, and where in the weights their channels stand."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.pruning.tracing import Role, Trace, Use

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Slot:
    """One axis of an initializer that carries channels of a group.

    `units` is int64 [length of the axis]: which unit of the group each index belongs to, or -1.
    `role`: it `makes` channels; `follows` them, and is zero once they are cut (a bias, a factor);
    stands `beside` them and is not (a divisor, a slope, a variance); or `reads` them into a sum.
    `node` is the reading node's first output; `tensor` the activation that it reads or makes.
    """

    initializer: str
    axis: int
    role: Role
    node: str
    tensor: str
    units: Array


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be cut one by one, all alike: each cuts the same axes by the same counts.

    `unit_size` is how many indices of one producer's axis go with one unit, of the producer
    where they are most: a head's depth, the groups of a grouped Conv, the gates of a recurrence.
    """

    id: str
    width: int
    unit_size: int
    slots: tuple[Slot, ...]
    macs_per_unit: float
    parameters_per_unit: float

    @property
    def producers(self) -> tuple[Slot, ...]:
        """Where its channels are made."""
        return tuple(slot for slot in self.slots if slot.role == "makes")

    @property
    def consumers(self) -> tuple[Slot, ...]:
        """Where its channels are summed over."""
        return tuple(slot for slot in self.slots if slot.role == "reads")


@dataclass(frozen=True)
class Frozen:
    """Channels that stay: `count` indices of one axis of an initializer that makes them."""

    initializer: str
    axis: int
    count: int
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """What can be cut of one model.

    `macs_share` and `parameters_share` say how much of all multiplications and constants stands
    along an axis that can be cut; `macs` are those of one sample. `unit_of` is int64 [atoms]:
    UNITS times the number of the group, plus the unit; or -1.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    macs_share: float
    parameters_share: float
    macs: int
    trace: Trace
    unit_of: Array


UNITS = 2**32
Likeness = frozenset[tuple[str, int, bytes]]


def likeness(group: Group) -> Likeness:
    """What makes a group of one trace the same as one of another."""
    return frozenset((slot.initializer, slot.axis, slot.units.tobytes()) for slot in group.slots)


def collect(trace: Trace, *, confirmed: frozenset[Likeness] | None = None) -> ChannelMap:
    """Resolve a trace into groups; where `confirmed` is given, only into those."""
    roots, reasons = trace.ties.resolved()
    slots = _slots(trace.uses)
    # Units are alike where they stand in the same weights and in the same activations, equally
    # often. So whatever is cut of a group, some of it is left wherever it stood.
    carried = {id(c.atoms): c.atoms for axes in trace.axes.values() for c in axes if c is not None}
    stands: defaultdict[int, dict[int, int]] = defaultdict(dict)  # root -> place -> indices
    for at, atoms in enumerate([*(use.channels.atoms for use in slots), *carried.values()]):
        found, counts = np.unique(roots[atoms], return_counts=True)
        for root, count in zip(found.tolist(), counts.tolist(), strict=True):
            stands[root][at] = count
    joined = {
        int(root)
        for channels in trace.joins.values()
        for each in channels
        for root in roots[each.atoms]
    }
    alike: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for root, stand in stands.items():
        if root not in reasons:
            alike[tuple(sorted(stand.items()))].append(root)
    unit_of_root = np.full(len(roots), -1, np.int64)
    groups: list[Group] = []
    for places, members in sorted(alike.items(), key=lambda item: min(item[1])):
        stand_items = tuple(item for item in places if item[0] < len(slots))
        roles = {use.role for at, _ in stand_items for use in _uses(trace, slots[at])}
        reason = _unfit(members, roles, joined)
        if reason:
            reasons |= dict.fromkeys(members, reason)
            continue
        number = np.full(len(roots), -1, np.int64)
        number[sorted(members)] = np.arange(len(members))
        group = _group(trace, slots, stand_items, number[roots], groups)
        if confirmed is not None and likeness(group) not in confirmed:
            reasons |= dict.fromkeys(members, "lies elsewhere for inputs of another shape")
            continue
        unit_of_root[sorted(members)] = len(groups) * UNITS + np.arange(len(members))
        groups.append(group)
    unit_of = unit_of_root[roots] if len(roots) else unit_of_root
    macs_share, parameters_share = _shares(trace, slots, unit_of)
    return ChannelMap(
        tuple(groups), _frozen(slots, roots, reasons), macs_share, parameters_share,
        sum(trace.macs.values()), trace, unit_of,
    )  # fmt: skip


def _slots(uses: list[Use]) -> list[Use]:
    """One use for each axis of each initializer: its others are tied to it."""
    first: dict[tuple[str, int], Use] = {}
    for use in uses:
        first.setdefault((use.initializer, use.axis), use)
    return list(first.values())


def _uses(trace: Trace, one: Use) -> list[Use]:
    return [u for u in trace.uses if (u.initializer, u.axis) == (one.initializer, one.axis)]


def _unfit(members: list[int], roles: set[Role], joined: set[int]) -> str:
    """Why units alike are no group."""
    if len(members) < 2:
        return "is a single unit"
    if "makes" not in roles:
        return "is made by nothing that can be cut"
    if "reads" not in roles and not joined & set(members):
        return "is read by nothing that can be cut"
    return ""


def _group(
    trace: Trace, slots: list[Use], stand: tuple[tuple[int, int], ...], number: Array,
    before: list[Group],
) -> Group:  # fmt: skip
    """The group whose units are numbered by `number`, int64 [atoms]."""
    made: list[Slot] = []
    macs = parameters = 0.0
    size = 1
    for at, count in stand:
        for use in _uses(trace, slots[at]):
            units = number[use.channels.atoms]
            node = trace.graph.node[use.node].output[0]
            made.append(Slot(use.initializer, use.axis, use.role, node, use.tensor, units))
            share = count / len(use.channels)
            macs += share * trace.macs.get(use.node, 0) * (use.position == 1)
            if use.role == "makes":
                size = max(size, count)
        parameters += _elements(trace, slots[at]) * count / len(slots[at].channels)
    first = next(slot for slot in made if slot.role == "makes")
    taken = sum(group.id.split("#")[0] == first.initializer for group in before)
    name = f"{first.initializer}#{taken}" if taken else first.initializer
    return Group(name, int(number.max()) + 1, size, tuple(made), macs, parameters)


def _elements(trace: Trace, use: Use) -> int:
    value = trace.constant(use.initializer)
    return 0 if value is None else int(value.size)


def _shares(trace: Trace, slots: list[Use], unit_of: Array) -> tuple[float, float]:
    """The share of all products, and of all constants, that stand along some axis of a group."""
    still: defaultdict[str, float] = defaultdict(lambda: 1.0)
    for use in slots:
        still[use.initializer] *= float((unit_of[use.channels.atoms] < 0).mean())
    total = reached = 0.0
    for name, shape in ((t.name, tuple(t.dims)) for t in trace.graph.initializer):
        elements = float(np.prod(shape)) if shape else 1.0
        total += elements
        reached += elements * (1 - still[name]) if name in still else 0.0
    macs = 0.0
    for at, count in trace.macs.items():
        weight = trace.graph.node[at].input[1]
        left = still.get(weight, 1.0)
        for channels in trace.joins.get(at, ()):
            left *= float((unit_of[channels.atoms] < 0).mean())
        macs += count * (1 - left)
    return macs / max(1, sum(trace.macs.values())), reached / max(1.0, total)


def _frozen(slots: list[Use], roots: Array, reasons: dict[int, str]) -> tuple[Frozen, ...]:
    found: list[Frozen] = []
    for use in slots:
        if use.role != "makes":
            continue
        counts: defaultdict[str, int] = defaultdict(int)
        for root in roots[use.channels.atoms].tolist():
            if root in reasons:
                counts[reasons[root]] += 1
        found += [Frozen(use.initializer, use.axis, n, why) for why, n in counts.items()]
    return tuple(found)
