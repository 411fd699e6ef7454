"""What the search over widths and precisions is told, and what its options mean (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compression.choosing.allocation import Problem
from compression.latency.layers import Layer
from compression.latency.surfaces import Surface


@dataclass(frozen=True)
class GroupFacts:
    """One group: its id, its width, those it may be cut to, and what it loses at some cuts.

    `losses` are at the shares `levels` that are cut; empty: it stays whole.
    """

    id: str
    width: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    levels: tuple[float, ...]
    spread: float
    """Which share of the values that other nodes make it carries."""


@dataclass(frozen=True)
class Facts:
    """All that the problem is made of. Costs are in references."""

    layers: tuple[Layer, ...]
    groups: tuple[GroupFacts, ...]
    surfaces: Mapping[tuple[int, bool], Surface]
    elements: Mapping[int, int]
    """Constants of each whole layer."""
    values: Mapping[int, int]
    """Values that each whole layer makes."""
    whole: Mapping[bool, float]
    """What the whole model costs in float (False) and in integers (True), where it is known."""
    rounding_loss: float = 0.0
    """What is lost where all layers run in integers."""
    crossing: float = 0.0
    """What a value costs that crosses from float to integers or back."""


@dataclass(frozen=True)
class Option:
    """How wide a group stays (its whole width where it has none), and in which precision."""

    width: int
    integers: bool


@dataclass
class Priced:
    """The problem, and what its options mean: by part the group's id (or None) and its layers."""

    problem: Problem
    groups: tuple[str | None, ...]
    layers: tuple[tuple[int, ...], ...]
    options: tuple[tuple[Option, ...], ...]

    def widths(self, chosen: Sequence[int]) -> dict[str, int]:
        """The widths of the groups that are cut."""
        return {
            group: options[at].width
            for group, options, at in zip(self.groups, self.options, chosen, strict=True)
            if group is not None and options[at].width < max(one.width for one in options)
        }

    def floats(self, chosen: Sequence[int]) -> tuple[int, ...]:
        """The layers that stay float although they need not."""
        return tuple(
            layer
            for layers, options, at in zip(self.layers, self.options, chosen, strict=True)
            if not options[at].integers and any(one.integers for one in options)
            for layer in layers
        )
