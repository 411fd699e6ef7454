"""What a layer is fitted by: what it reads in the cut model, and what the original has there."""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.calibration.moments import Input
from compression.pruning import layers
from compression.pruning.behind import Stays
from compression.pruning.layers import Layer

Floats = NDArray[np.float64]
_BYTES = 8
_HELD = 8
"""Matrices of one layer in memory at a time: two parts, these about their means, what is solved.
With 2,208 inputs 320 MB were measured, which is 8.2."""


@dataclass(frozen=True)
class Pair:
    """One layer in the original and in the cut model; `stays` is what the cut leaves of it."""

    original: Layer
    cut: Layer
    stays: Stays

    @property
    def x(self) -> Input:
        """What is read in the cut model."""
        return self.cut.input

    @property
    def y(self) -> Input:
        """What the original has."""
        return self.original.output

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """Which channels of `y` are fitted to."""
        return self.stays.outputs

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, inputs and outputs of what is solved."""
        form = self.cut.form
        return form.groups, form.inputs, form.outputs // form.groups

    @property
    def is_behind(self) -> bool:
        """Whether the bias is added behind what is compared, as that of a MatMul may be."""
        return self.cut.added is not None and self.cut.name == self.cut.node.output[0]

    @property
    def shifts(self) -> bool:
        """Whether means are taken over by a bias."""
        return self.cut.can_shift

    @property
    def bytes(self) -> int:
        """What the moments of the pair take."""
        groups, inputs, outputs = self.shape
        return _BYTES * groups * (_HELD * inputs**2 + 3 * inputs * outputs)

    def prior(self, model: onnx.ModelProto) -> tuple[Floats, Floats]:
        """Weights [groups, inputs, outputs] and what they shift by [groups, outputs], as cut."""
        bench = layers.Bench(model)
        weights = np.swapaxes(bench.rows(self.cut), 1, 2)
        bias = np.zeros(self.cut.form.outputs) if self.is_behind else bench.bias(self.cut)
        return weights, bias.reshape(len(weights), -1)

    def write(self, model: onnx.ModelProto, weights: Floats, bias: Floats) -> None:
        """Put what was solved into the cut model."""
        bench = layers.Bench(model)
        behind = bench.bias(self.cut) if self.is_behind else 0.0
        shift = bias.reshape(-1) + behind if self.shifts else None
        bench.write(self.cut, np.swapaxes(weights, 1, 2), shift)


@dataclass(frozen=True)
class Mixing(Pair):
    """A layer that sees each channel at several places: these are fitted to the original's.

    The same mixture of channels then stands in at each place, of a kernel or behind a Flatten.
    That needs far fewer samples, and far less memory, than weights for every place.
    """

    reference: onnx.ModelProto
    tensor: str
    rank: int

    @property
    def x(self) -> Input:
        """The channels that are read in the cut model."""
        return Input(self.tensor, self.shape[1], layers.points(self.rank - 2))

    @property
    def y(self) -> Input:
        """The channels that the original reads."""
        return Input(self.tensor, self.shape[2], layers.points(self.rank - 2))

    @property
    def chosen(self) -> NDArray[np.bool_]:
        """All channels of `y`."""
        return np.ones(self.shape[2], bool)

    @property
    def shape(self) -> tuple[int, int, int]:
        """One group: channels that are left, and channels of the original."""
        return 1, int(self.stays.inputs.sum()), len(self.stays.inputs)

    @property
    def is_behind(self) -> bool:
        """What is compared stands before the layer."""
        return False

    def prior(self, model: onnx.ModelProto) -> tuple[Floats, Floats]:
        """Each channel that is left stands for itself."""
        del model
        return np.eye(self.shape[2])[self.stays.inputs][None], np.zeros((1, self.shape[2]))

    def write(self, model: onnx.ModelProto, weights: Floats, bias: Floats) -> None:
        """Mix the original's weights as its channels are mixed."""
        held, bench = layers.Bench(self.reference), layers.Bench(model)
        before = held.rows(self.original)[0][self.stays.outputs]
        places = before.reshape(len(before), self.shape[2], -1)
        mixed = np.einsum("xc,ock->oxk", weights[0], places)
        moved = places.sum(2) @ bias[0]
        shift = held.bias(self.original)[self.stays.outputs] + moved if self.shifts else None
        bench.write(self.cut, mixed.reshape(1, len(mixed), -1), shift)


def chain(
    original: Layer, cut: Layer, stays: Stays, *, reference: onnx.ModelProto, bound: float
) -> list[Pair]:
    """How a layer is fitted, one after the other; what does not fit into `bound` bytes is left."""
    whole = Pair(original, cut, stays)
    steps = [whole]
    if stays.spread is not None and stays.inputs.sum() > 0:
        steps = [Mixing(original, cut, stays, reference, *stays.spread), whole]
    fitting: list[Pair] = []
    for one in steps:
        if one.bytes + sum(other.bytes for other in fitting) <= bound:
            fitting.append(one)
    return fitting
