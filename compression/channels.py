"""Which channels of a model can be cut, what goes together, and why the rest stays.

Structured pruning's ground: every axis of every tensor carries its channels through the graph;
what meets is tied (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, does so
per layer; here it is per channel, so that Concat, Split and Slice need no rules between them).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from compression.pruning import groups, rules, sizes
from compression.pruning.tracing import Signature, Trace
from compression.regular import equality

ChannelMap = groups.ChannelMap
Frozen = groups.Frozen
Group = groups.Group
Slot = groups.Slot
MOST_TRACES = 16
"""How often a graph is walked at most to see where its blocks are best cut."""
_LEAST_GAIN = 1e-6
Arrays = Mapping[str, NDArray[Any]]


def find(
    model: onnx.ModelProto, *, sample: Arrays | None = None, folder: Path | None = None
) -> ChannelMap:
    """Find the channel groups of a regular model (`graph.regular`).

    `sample` is one run's inputs by name; without it random ones are made. A model with dynamic
    dims is run at two shapes, and only what holds at both is a group. `folder` holds a file as
    large as the model while this runs.

    Raises:
        BadModel: the model does not run, answers NaN, or differently each time.
    """
    first, *others = [sizes.seen(model, feeds) for feeds in _cases(model, sample, folder)]
    choices: dict[Signature, int] = {}
    best = _traced(model, first, choices)
    asked = 1
    for signature, count in best.trace.open.items():
        for candidate in range(1, min(count, MOST_TRACES - asked + 1)):
            asked += 1
            found = _traced(model, first, choices | {signature: candidate})
            if found.macs_share > best.macs_share + _LEAST_GAIN:
                choices[signature] = candidate
                best = found
    for shapes in others:
        seen = frozenset(map(groups.likeness, _traced(model, shapes, choices).groups))
        if seen != frozenset(map(groups.likeness, best.groups)):
            return groups.collect(best.trace, confirmed=seen)
    return best


def _traced(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], choices: dict[Signature, int]
) -> ChannelMap:
    trace = Trace(model, shapes, choices)
    trace.walk(rules.apply)
    return groups.collect(trace)


def _cases(model: onnx.ModelProto, sample: Arrays | None, folder: Path | None) -> list[Arrays]:
    """Inputs of one shape, and of a second one if the model takes any."""
    with tempfile.TemporaryDirectory(prefix="channels-", dir=folder) as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(model, path)
        return [feeds for feeds, _ in equality.ask(path, sample=sample).cases]
