"""What calibration streams first: the range of each float tensor, sample by sample.

The minima and maxima are taken inside the graph (ReduceMin and ReduceMax nodes are added), so no
activation ever leaves the session: beyond the model itself the state is a few numbers a tensor,
whatever the number of samples. What needs the values themselves is in gathering.py.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import taps
from compression.errors import BadInputs

Arrays = dict[str, NDArray[Any]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Range:
    """Where the values of one tensor lay. The means are of each sample's extremes."""

    low: float
    high: float
    mean_low: float
    mean_high: float

    def cut(self, reach: float) -> tuple[float, float]:
        """The range with its ends drawn in towards the means; `reach` 1 keeps it."""
        return (
            self.mean_low + reach * (self.low - self.mean_low),
            self.mean_high + reach * (self.high - self.mean_high),
        )


class Accumulator:
    """Running extremes and largest shapes of a fixed list of tensors: no history."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.samples = 0
        self._low = np.full(len(names), np.inf)
        self._high = np.full(len(names), -np.inf)
        self._sum_low = np.zeros(len(names))
        self._sum_high = np.zeros(len(names))
        self._shapes: dict[str, Shape] = dict.fromkeys(names, (0,))

    @property
    def state_bytes(self) -> int:
        """What it holds, whatever it has seen."""
        vectors = (self._low, self._high, self._sum_low, self._sum_high)
        return sum(vector.nbytes for vector in vectors)

    def add(
        self,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        """Take in one sample's extremes, both [len(names)] float64, and shapes by name."""
        self.samples += 1
        self._low = np.minimum(self._low, low)
        self._high = np.maximum(self._high, high)
        self._sum_low += low
        self._sum_high += high
        for name, shape in (shapes or {}).items():
            if math.prod(shape) >= math.prod(self._shapes[name]):
                self._shapes[name] = shape

    def ranges(self) -> dict[str, Range]:
        """The ranges by tensor name; tensors whose extremes are not finite are left out."""
        low, high = self._sum_low / self.samples, self._sum_high / self.samples
        columns = zip(self.names, self._low, self._high, low, high, strict=True)
        return {
            name: Range(*(float(value) for value in values))
            for name, *values in columns
            if np.isfinite(values).all()
        }

    def shapes(self) -> dict[str, Shape]:
        """The shape of each tensor in the sample where it was largest."""
        return dict(self._shapes)


def ranges(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    *,
    count: int,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Range]:
    """Run `count` samples through the model and return each float tensor's range.

    Raises:
        BadInputs: there are no samples.
        BadModel: the model does not run on one of them.
    """
    names = taps.float_tensors(model)
    return extremes(model, feeds, names, count=count, threads=threads, progress=progress).ranges()


def extremes(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    names: Sequence[str],
    *,
    count: int,
    threads: int = 1,
    progress: Callable[[float], None] = lambda _: None,
) -> Accumulator:
    """Run `count` samples through the model and add up the extremes of these float tensors.

    Raises:
        BadInputs: there are no samples.
        BadModel: the model does not run on one of them, or has no such float tensor.
    """
    # A model of doubles or of whole numbers has none, and a graph without outputs does not load.
    session = taps.session(taps.extremes(model, names), threads=threads) if names else None
    seen = Accumulator(names)
    for done, sample in enumerate(feeds, start=1):
        found = runtime.run(session, sample) if session is not None else {}
        rows = [found[f"{taps.SEEN}{at}"] for at in range(len(names))]
        low, high = (np.array([row[at] for row in rows], np.float64) for at in (0, 1))
        shapes = {n: tuple(map(int, row[2:])) for n, row in zip(names, rows, strict=True)}
        seen.add(low, high, shapes)
        progress(min(1.0, done / max(count, 1)))
    if seen.samples == 0:
        raise BadInputs("cannot calibrate: there are no samples")
    return seen
