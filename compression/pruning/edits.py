"""What else has to change in a graph when channels go: widths in shapes, counts, positions, biases.

A trace notes these beside the channels they hang on; surgery carries out those whose channels
are really cut. Nodes are named by their place in the graph.
"""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from compression.pruning.ties import Channels

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Widths:
    """Entries of a vector of whole numbers that are counts of channels: shapes, sizes, bounds.

    `position` is the input of the node that holds the vector; `entries` are (index, atoms). Bounds
    hang on all channels of their axis, `source`: they may be counted from its end.
    """

    node: int
    position: int
    entries: tuple[tuple[int, Array], ...]
    source: Array | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The sizes of a Split's outputs."""

    node: int
    parts: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Count:
    """An attribute that is a count of channels: the groups of a depthwise Conv, a hidden size."""

    node: int
    attribute: str
    atoms: Array


@dataclass(frozen=True, eq=False)
class Positions:
    """Indices into channels: of a Gather, or of a Slice with steps, which becomes a Gather."""

    node: int
    axis: int
    source: Array
    indices: Array


@dataclass(frozen=True, eq=False)
class ZeroState:
    """A first state of zeros whose width was the hidden size: leaving it out means zeros too."""

    node: int
    position: int
    atoms: Array


@dataclass(frozen=True, eq=False)
class Leak:
    """A node that reads channels which are not zero once they are cut.

    Where `folds`, they are constants that go into the node's bias, exactly. Elsewhere (behind
    spatial padding a constant is none at the border; others never were) the node reads zero.
    `out` is the axis of its output that its bias lies along, as channels.
    """

    node: int
    position: int
    axis: int
    channels: Channels
    folds: bool
    out: Channels | None = None


Edit = Widths | Parts | Count | Positions | ZeroState
