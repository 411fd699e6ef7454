"""What calibration streams: the range of each float tensor, sample by sample.

The minima and maxima are taken inside the graph (ReduceMin and ReduceMax nodes are added), so no
activation ever leaves the session: beyond the model itself the state is four numbers a tensor,
whatever the number of samples.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compression import runtime
from compression.errors import BadInputs
from compression.job import Runtime

Arrays = dict[str, NDArray[Any]]


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
    """Running extremes of a fixed list of tensors: four vectors, no history."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.samples = 0
        self._low = np.full(len(names), np.inf)
        self._high = np.full(len(names), -np.inf)
        self._sum_low = np.zeros(len(names))
        self._sum_high = np.zeros(len(names))

    @property
    def state_bytes(self) -> int:
        """What it holds, whatever it has seen."""
        vectors = (self._low, self._high, self._sum_low, self._sum_high)
        return sum(vector.nbytes for vector in vectors)

    def add(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        """Take in one sample's extremes, both [len(names)] float64."""
        self.samples += 1
        self._low = np.minimum(self._low, low)
        self._high = np.maximum(self._high, high)
        self._sum_low += low
        self._sum_high += high

    def ranges(self) -> dict[str, Range]:
        """The ranges by tensor name; tensors whose extremes are not finite are left out."""
        low, high = self._sum_low / self.samples, self._sum_high / self.samples
        columns = zip(self.names, self._low, self._high, low, high, strict=True)
        return {
            name: Range(*(float(value) for value in values))
            for name, *values in columns
            if np.isfinite(values).all()
        }


def float_tensors(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of all float32 tensors that inputs and nodes of the main graph bring, in order."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name]
    del probe.graph.output[:]
    # An output without a type takes the one that onnxruntime infers: better than onnx's guess.
    produced = names[len(model.graph.input) :]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in produced)
    session = runtime.session(probe, runtime.options(optimization="disabled"))
    values = [*session.get_inputs(), *session.get_outputs()]
    return tuple(value.name for value in values if value.type == "tensor(float)")


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
    names = float_tensors(model)
    tapped = _tapped(model, names)
    how = Runtime(threads=threads)
    session = runtime.session(tapped, runtime.options(how, optimization="basic"))
    seen = Accumulator(names)
    for done, sample in enumerate(feeds, start=1):
        outputs = list(runtime.run(session, sample).values())
        extremes = np.array([float(value) for value in outputs]).reshape(-1, 2)
        seen.add(extremes[:, 0], extremes[:, 1])
        progress(min(1.0, done / max(count, 1)))
    if seen.samples == 0:
        raise BadInputs("cannot calibrate: there are no samples")
    return seen.ranges()


def _tapped(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    graph = tapped.graph
    del graph.output[:]
    for index, name in enumerate(names):
        for kind in ("ReduceMin", "ReduceMax"):
            output = f"::{kind}::{index}"
            graph.node.append(helper.make_node(kind, [name], [output], output, keepdims=0))
            graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return tapped
