"""Histograms, channel means and Gram matrices of tensors, streamed within a bound of memory.

A first pass finds extremes and shapes inside the graph. The values then leave the session in
further passes, each over as many neighbouring tensors as the bound allows: no pass holds more than
one sample of them, so the number of samples costs time and no memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime, statistics
from compression.calibration import grams, histograms, taps
from compression.calibration.histograms import Histogram
from compression.errors import OutOfBudget
from compression.statistics import Arrays, Range, Shape

Feeds = Callable[[], Iterable[Arrays]]
"""Called once for each pass; gives the same samples in the same order every time."""
Tell = Callable[[float], None]
_FLOAT_BYTES = 4


@dataclass(frozen=True)
class What:
    """What to gather of one float tensor, beside its range."""

    histogram: bool = False
    channel_axis: int | None = None
    """If given, the means of its channels."""
    gram: bool = False
    """Also X^T X over those channels, from at most `positions` of each sample."""
    positions: int = grams.POSITIONS

    @property
    def values(self) -> bool:
        """Whether the values themselves must leave the session."""
        return self.histogram or self.channel_axis is not None


@dataclass(frozen=True)
class Statistics:
    """What was gathered of one tensor over `samples` samples; None where nobody asked."""

    samples: int
    range: Range
    histogram: Histogram | None = None
    channels: grams.Channels | None = None


def stream(
    model: onnx.ModelProto,
    feeds: Feeds,
    *,
    count: int,
    wanted: Mapping[str, What],
    work_memory_mib: float,
    threads: int = 1,
    seed: int = 0,
    progress: Tell = lambda _: None,
) -> Iterator[tuple[str, Statistics]]:
    """Gather what is `wanted` of tensors; yield each one's statistics as soon as they are known.

    Beside the model and what it needs to run, at most `work_memory_mib` is held: the values of
    one sample for as many tensors as fit into it, and what is gathered of them. A tensor whose
    values alone take more is brought out by itself. What was yielded is the caller's to hold.
    Equal samples and `seed` give equal results. A tensor that is not finite throughout is left out.

    Raises:
        BadInputs: there are no samples.
        BadModel: the model does not run on one of them, or has no such float tensor.
        OutOfBudget: what is gathered of one tensor alone takes more than the bound.
    """

    def first(done: float) -> None:
        progress(done / 2)

    seen = statistics.extremes(
        model, feeds(), tuple(wanted), count=count, threads=threads, progress=first
    )
    ranges, shapes = seen.ranges(), seen.shapes()
    bound = work_memory_mib * 2**20
    costs: dict[str, int] = {}
    for name, found in ranges.items():
        if wanted[name].values:
            costs[name] = _cost(name, wanted[name], shapes[name], bound)
        else:
            yield name, Statistics(seen.samples, found)
    parts = taps.batches(costs, bound=bound)
    for at, part in enumerate(parts):

        def later(done: float, at: int = at) -> None:
            progress(0.5 + (at + done) / (2 * len(parts)))

        gatherers = {name: _Gatherer(wanted[name], ranges[name], seed) for name in part}
        _pass(model, feeds(), gatherers, count=count, threads=threads, progress=later)
        while gatherers:
            name = next(iter(gatherers))
            yield name, gatherers.pop(name).statistics(seen.samples)
    progress(1.0)


def _cost(name: str, what: What, shape: Shape, bound: float) -> int:
    """Return the bytes that gathering from one tensor takes."""
    held = histograms.STATE_BYTES if what.histogram else 0
    if what.channel_axis is not None:
        held += grams.state_bytes(shape[what.channel_axis], gram=what.gram)
    if held > bound:
        raise OutOfBudget(
            f"cannot gather the statistics of {name!r}, of shape {list(shape)}: they take "
            f"{held / 2**20:.1f} MiB, more than the {bound / 2**20:.1f} MiB for statistics"
        )
    return int(np.prod(shape)) * _FLOAT_BYTES + held


class _Gatherer:
    """What is added up of one tensor."""

    def __init__(self, what: What, found: Range, seed: int) -> None:
        self._range = found
        self._counter = histograms.Counter(found.low, found.high) if what.histogram else None
        self._sums = None
        if what.channel_axis is not None:
            self._sums = grams.Sums(
                what.channel_axis, gram=what.gram, positions=what.positions, seed=seed
            )

    def add(self, values: NDArray[Any]) -> None:
        for one in (self._counter, self._sums):
            if one is not None:
                one.add(values)

    def statistics(self, samples: int) -> Statistics:
        return Statistics(
            samples=samples,
            range=self._range,
            histogram=self._counter.histogram() if self._counter else None,
            channels=self._sums.channels() if self._sums else None,
        )


def _pass(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    gatherers: Mapping[str, _Gatherer],
    *,
    count: int,
    threads: int,
    progress: Tell,
) -> None:
    """Run all samples once, bringing out these tensors."""
    given = {value.name for value in model.graph.input}
    names = [name for name in gatherers if name not in given]
    session = taps.session(taps.outputs(model, names), threads=threads) if names else None
    for done, sample in enumerate(feeds, start=1):
        for name in gatherers.keys() & given:
            gatherers[name].add(sample[name])
        if session is not None:
            for name, values in runtime.each(session, sample):
                gatherers[name].add(values)
        progress(min(1.0, done / max(count, 1)))
