"""What the readers of a group sum: their weights, and what their inputs have in common."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.calibration.evidence import Evidence
from compression.calibration.moments import Input, Moments
from compression.pruning import layers
from compression.pruning.groups import ChannelMap, Slot
from compression.pruning.ordering import Reader
from compression.pruning.parts import Parts
from compression.regular.wiring import attribute

Array = NDArray[Any]
Floats = NDArray[np.float64]
_SPATIAL = frozenset({"Conv", "ConvTranspose"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})


@dataclass(frozen=True)
class Seen:
    """A slot that reads a group, its weights [n, outputs] and the moments of what it reads.

    `n` is the length of its axis, times the groups of a Conv; `places` of that axis are one channel
    where a Flatten lies before. Such places and a kernel's count as outputs: what stands in for a
    channel does so at each of them.
    """

    slot: Slot
    axis: int
    shape: tuple[int, ...]
    groups: int
    weights: Floats
    mean: Floats
    gram: Floats
    rows: int
    places: int

    @property
    def units(self) -> Array:
        """The unit of each input, int64 [n], or -1."""
        return np.tile(self.slot.units[:: self.places], self.groups)

    def reader(self, *, shifts: bool) -> Reader:
        """What orders units; where no bias takes means over, these count as well."""
        gram = self.gram if shifts else self.gram + np.outer(self.mean, self.mean)
        return Reader(gram, self.weights, self.units)

    def back(self, weights: Floats) -> Array:
        """Weights [n, outputs] as the model holds them, float32."""
        if self.groups == 1:
            moved = weights.reshape(self.shape)
            return np.ascontiguousarray(np.moveaxis(moved, 0, self.axis), np.float32)
        outs, rest = self.shape[1], self.shape[2:]
        parts = weights.reshape(self.groups, -1, outs // self.groups, *rest)
        return np.ascontiguousarray(np.moveaxis(parts, 1, 2).reshape(outs, -1, *rest), np.float32)


def find(model: onnx.ModelProto, channels: ChannelMap, parts: Parts) -> dict[str, list[Seen]]:
    """Return what is seen of each group's readers, on the samples that are fitted to.

    Readers whose inputs are not finite, too wide for the memory, or no plain sums, are left out.

    Raises:
        BadModel: the model does not run.
    """
    nodes = {node.output[0]: node for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    wanted: dict[str, tuple[str, Slot]] = {}
    inputs: dict[str, Input] = {}
    for group in channels.groups:
        for at, slot in enumerate(group.consumers):
            read = _flattened(nodes[slot.node], slot, makers.get(slot.tensor), channels)
            read = read or _input(nodes[slot.node], slot, channels)
            if read is not None:
                key = f"{group.id} {at}"
                wanted[key], inputs[key] = (group.id, slot), read
    found: dict[str, list[Seen]] = {group.id: [] for group in channels.groups}
    for key, moments in _moments(model, parts, inputs):
        name, slot = wanted[key]
        value = numpy_helper.to_array(tensors[slot.initializer])
        found[name].append(_seen(slot, nodes[slot.node], value, moments))
    return found


def _moments(
    model: onnx.ModelProto, parts: Parts, inputs: Mapping[str, Input]
) -> Iterator[tuple[str, Moments]]:
    given = parts.evidence
    fitting = Evidence(
        lambda: (sample for _, sample in parts.feeds(judging=False)),
        threads=given.threads, work_memory_mib=given.work_memory_mib, seed=given.seed,
    )  # fmt: skip
    return fitting.moments(model, inputs) if inputs else iter(())


def _input(node: onnx.NodeProto, slot: Slot, channels: ChannelMap) -> Input | None:
    """How the channels that a slot reads are seen, one by one; None where they are not summed."""
    if node.op_type not in _LINEAR or node.input[1] != slot.initializer:
        return None
    shape = channels.trace.shape(slot.tensor)
    if node.op_type not in _SPATIAL:
        return Input(slot.tensor, shape[-1]) if shape[-1] == len(slot.units) else None
    if node.op_type == "ConvTranspose" and shape[1] != len(slot.units):
        return None
    return Input(slot.tensor, shape[1], layers.points(len(shape) - 2))


def _flattened(
    node: onnx.NodeProto, slot: Slot, maker: onnx.NodeProto | None, channels: ChannelMap
) -> Input | None:
    """The channels before a Flatten, which say more than each of their places by itself."""
    before = layers.flattened(maker, channels.trace.shapes, len(slot.units))
    if node.op_type not in {"Gemm", "MatMul"} or before is None:
        return None
    tensor, shape = before
    apart = slot.units.reshape(shape[1], -1)
    if (apart != apart[:, :1]).any():
        return None
    return Input(tensor, shape[1], layers.points(len(shape) - 2))


def _seen(slot: Slot, node: onnx.NodeProto, value: Array, moments: Moments) -> Seen:
    mean, gram = moments.mean[0], moments.gram[0]
    groups = max(1, len(mean) // len(slot.units))
    places = max(1, len(slot.units) // len(mean))
    moved = np.moveaxis(value.astype(np.float64), slot.axis, 0)
    weights = moved.reshape(len(slot.units) // places, -1)
    if groups > 1:
        assert int(attribute(node, "group")) == groups
        apart = moved.reshape(len(slot.units), groups, -1)
        weights = np.moveaxis(apart, 1, 0).reshape(len(mean), -1)
        of = np.repeat(np.arange(groups), len(slot.units))
        gram = np.where(of[:, None] == of, gram, 0)  # each sums its own channels alone
    return Seen(slot, slot.axis, moved.shape, groups, weights, mean, gram, moments.rows, places)
