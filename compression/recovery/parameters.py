"""Which initializers learn, in which units, and how they are written back under their names.

| kind | what | in units of |
| --- | --- | --- |
| FLOAT | weights, biases, per-channel constants | themselves |
| ROUNDED | 8-bit weights behind a DequantizeLinear | their own steps, with the part rounded off |
| BIAS | 32-bit biases behind a DequantizeLinear | what they stand for: steps differ by channel |
| SCALE | scales of QuantizeLinear and DequantizeLinear | the logarithm of how much they grew |

A master of 8 bits begins where the float weight lay within its step. Zero points stay. What a node
that only moves values has before and behind it has one scale, or the runtime would not fuse it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from compression.recovery.nodes import Node
from compression.recovery.operators.quantizing import straight_through
from compression.recovery.scales import Biases, Scales

SLOTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (0, 1), "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3), "RNN": (1, 2, 3), "BatchNormalization": (1, 2), "PRelu": (1,),
    "LayerNormalization": (1, 2), "InstanceNormalization": (1, 2), "GroupNormalization": (1, 2),
    "RMSNormalization": (1,), "Gather": (0,), "com.microsoft.FusedMatMul": (0, 1),
    "com.microsoft.BiasGelu": (1,), "com.microsoft.FastGelu": (1,),
}  # fmt: skip
"""At which inputs the constants of an operator learn."""
PER_CHANNEL = ("Add", "Mul")
"""Their constants learn where they are one value a channel: others are grids and masks."""
MOST_VALUE = 1e3
"""A constant beyond this marks something."""
_MOST_GROWTH = 3.0
_WITHIN = 0.4999
"""Of a step: what rounds to it, ties apart."""


class Kind(Enum):
    """See the table above."""

    FLOAT = "float"
    ROUNDED = "rounded"
    BIAS = "bias"
    SCALE = "scale"


@dataclass(frozen=True)
class Leaf:
    """What learns under one name, and under the `names` that share it."""

    kind: Kind
    tensor: Any
    names: tuple[str, ...]
    low: float = 0.0
    high: float = 0.0
    base: Any = None
    """Scales as they were, a bias's own too: those of one tensor's channels differ by orders of
    magnitude, so that no step may be in them."""

    def value(self) -> Any:
        """What the graph computes with."""
        if self.kind is Kind.ROUNDED:
            return straight_through(self.tensor.clamp(self.low, self.high))
        if self.kind is Kind.SCALE:
            return self.base * self.tensor.exp()
        return self.tensor / self.base if self.kind is Kind.BIAS else self.tensor

    def settle(self) -> None:
        """Bring it back into its bounds, after a step."""
        if self.kind is Kind.ROUNDED:
            self.tensor.data.clamp_(self.low - _WITHIN, self.high + _WITHIN)
        elif self.kind is Kind.SCALE:
            self.tensor.data.clamp_(-_MOST_GROWTH, _MOST_GROWTH)


class Parameters:
    """The leaves of one model by name."""

    def __init__(
        self,
        model: onnx.ModelProto,
        nodes: Sequence[Node],
        *,
        masters: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """`masters` are float weights by name, where a model of 8-bit weights came from."""
        held = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
        self._biases = Biases(nodes, held)
        scales = Scales(nodes, held)
        self.leaves: dict[str, Leaf] = {}
        for name in _learning(nodes, held):
            self._add(Kind.FLOAT, (name,), held[name])
        for name, grid in scales.rounded.items():
            self._add_rounded(name, grid, held, masters or {})
        for name, (own, _, _) in self._biases.scales.items():
            self._add(Kind.BIAS, (name,), held[name] * held[own], base=held[own])
        for group in scales.groups(self._biases.own_scales()):
            before = held[group[0]]
            self._add(Kind.SCALE, group, np.zeros_like(before), base=before)

    def _add(
        self,
        kind: Kind,
        names: tuple[str, ...],
        values: NDArray[Any],
        *,
        bounds: tuple[float, float] = (0.0, 0.0),
        base: NDArray[Any] | None = None,
    ) -> None:
        tensor = torch.from_numpy(np.array(values, np.float32))
        held = None if base is None else torch.from_numpy(np.array(base, np.float32))
        self.leaves[names[0]] = Leaf(kind, tensor.requires_grad_(), names, *bounds, held)

    def _add_rounded(
        self,
        name: str,
        grid: tuple[NDArray[Any], NDArray[Any]],
        held: Mapping[str, NDArray[Any]],
        masters: Mapping[str, NDArray[Any]],
    ) -> None:
        scale, zero = grid
        q = held[name].astype(np.float32)
        bound = max(1.0, float(np.abs(q - zero).max(initial=0.0)))
        middle = float(zero.reshape(-1)[0]) if zero.size else 0.0
        limits = np.iinfo(held[name].dtype)
        low, high = max(limits.min, middle - bound), min(limits.max, middle + bound)
        master = masters.get(name.removesuffix("_quantized"))
        if master is not None and master.shape == q.shape:
            q = q + np.clip(master / scale + zero - q, -_WITHIN, _WITHIN)
        self._add(Kind.ROUNDED, (name,), q, bounds=(float(low), float(high)))

    def rounded(self) -> bool:
        """Whether weights of 8 bits are among them."""
        return any(leaf.kind is Kind.ROUNDED for leaf in self.leaves.values())

    def values(self) -> dict[str, Any]:
        """What stands in for the initializers in one run, by name."""
        made: dict[str, Any] = {}
        for leaf in self.leaves.values():
            made |= dict.fromkeys(leaf.names, leaf.value())
        return made

    def settle(self) -> None:
        """Bring all leaves back into their bounds, after a step."""
        for leaf in self.leaves.values():
            leaf.settle()

    def write(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return the model with what was learned; nodes, names, shapes and dtypes stay."""
        arrays = {
            name: leaf.value().detach().numpy()
            for leaf in self.leaves.values()
            for name in leaf.names
        }
        arrays |= self._biases.settled(arrays)
        made = onnx.ModelProto()
        made.CopyFrom(model)
        for tensor in made.graph.initializer:
            if tensor.name in arrays:
                kind = numpy_helper.to_array(tensor)
                values = arrays[tensor.name]
                if kind.dtype.kind in "iu":
                    values = np.clip(np.rint(values), *_limits(kind.dtype))
                held = np.ascontiguousarray(values.astype(kind.dtype)).reshape(kind.shape)
                tensor.CopyFrom(numpy_helper.from_array(held, tensor.name))
        return made


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    found = np.iinfo(dtype)
    return float(found.min), float(found.max)


def _learning(nodes: Sequence[Node], held: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Float initializers that learn, each once."""
    seen: set[str] = set()
    for node in nodes:
        slots = SLOTS.get(node.operator, ())
        if node.operator in PER_CHANNEL:
            slots = tuple(at for at in (0, 1) if _per_channel(held.get(node.inputs[at])))
        for at in slots:
            name = node.inputs[at] if at < len(node.inputs) else ""
            values = held.get(name)
            if name in seen or values is None or values.dtype != np.float32 or not values.size:
                continue
            if np.isfinite(values).all() and np.abs(values).max() < MOST_VALUE:
                seen.add(name)
                yield name


def _per_channel(values: NDArray[Any] | None) -> bool:
    return values is not None and values.size > 1 and values.size == max(values.shape)
