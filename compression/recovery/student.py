"""A model that learns: its graph in torch, what of it learns, and how far off it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from compression.recovery import losses
from compression.recovery.aims import Aim
from compression.recovery.interpreter import Interpreter, tensors
from compression.recovery.parameters import Parameters

Arrays = Mapping[str, NDArray[Any]]
_RIDGE = 1e-2


@dataclass(frozen=True)
class Weights:
    """How much outputs and features count in the loss."""

    outputs: float
    features: float


class Student:
    """One model that learns to answer as its teacher does."""

    def __init__(
        self,
        model: onnx.ModelProto,
        *,
        aims: Sequence[Aim],
        features: Sequence[Aim],
        masters: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.model = model
        self.aims = tuple(aims)
        self.features = tuple(features)
        self.net = Interpreter(model)
        self.parameters = Parameters(model, self.net.nodes, masters=masters)
        self.regressors: dict[str, Any] = {}
        """Of features of other widths: what makes the teacher's channels of ours (Romero et al.
        2015, "FitNets", section 2.2), by the tensor's name; [ours + 1, theirs]."""

    def leaves(self) -> dict[str, Any]:
        """Everything that learns, by name."""
        learning = {name: leaf.tensor for name, leaf in self.parameters.leaves.items()}
        return learning | {f"::regressor::{name}": one for name, one in self.regressors.items()}

    def taught(self) -> tuple[str, ...]:
        """The teacher's tensors that the loss asks for, each once."""
        return tuple(dict.fromkeys(aim.teacher for aim in (*self.aims, *self.features)))

    def run(self, feeds: Arrays, *, features: bool) -> dict[str, Any]:
        """Return the tensors that are compared; with gradients where torch keeps them."""
        aims = (*self.aims, *self.features) if features else self.aims
        wanted = [aim.student for aim in aims]
        return self.net.run(tensors(feeds), self.parameters.values(), wanted=wanted)

    def loss(self, feeds: Arrays, answers: Arrays, weights: Weights) -> Any:
        """The loss on one batch, whose `answers` are the teacher's tensors by name."""
        found = self.run(feeds, features=weights.features > 0)
        given = tensors(answers)
        total = 0.0
        for aim in self.aims:
            total = total + weights.outputs * losses.of(aim, given[aim.teacher], found[aim.student])
        if weights.features > 0:
            for aim in self.features:
                ours = self._widened(aim.student, found[aim.student])
                share = weights.features / len(self.features)
                total = total + share * losses.values(given[aim.teacher], ours)
        return total

    def begin(self, feeds: Arrays, answers: Arrays) -> None:
        """Look at one batch: which features can be compared, and by which regressor."""
        given = tensors(answers)
        with torch.no_grad():
            found = self.run(feeds, features=True)
        kept = []
        for aim in self.features:
            a, b = given.get(aim.teacher), found[aim.student]
            if a is None or not _alike(a, b):
                continue
            if a.shape != b.shape:
                self.regressors[aim.student] = _fitted(b, a).requires_grad_()
            kept.append(aim)
        self.features = tuple(kept)

    def _widened(self, name: str, x: Any) -> Any:
        regressor = self.regressors.get(name)
        if regressor is None:
            return x
        made = _rows(x) @ regressor[:-1] + regressor[-1]
        if x.dim() <= 3:
            return made.reshape(*x.shape[:-1], -1)
        return made.reshape(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)

    def written(self) -> onnx.ModelProto:
        """The model as it is now."""
        return self.parameters.write(self.model)


def _alike(a: Any, b: Any) -> bool:
    """Whether two features differ in nothing but their number of channels."""
    if a.dim() != b.dim() or a.dim() < 2 or not a.is_floating_point():
        return False
    axis = 1 if a.dim() > 3 else a.dim() - 1
    return all(m == n for at, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if at != axis)


def _rows(x: Any) -> Any:
    """One row of channels for each place: they are axis 1 of pictures, and the last of others."""
    return x.reshape(-1, x.shape[-1]) if x.dim() <= 3 else x.movedim(1, -1).flatten(0, -2)


def _fitted(ours: Any, theirs: Any) -> Any:
    """Least squares with a ridge, in float64: rows of ours and a one to rows of theirs."""
    x, y = _rows(ours).numpy().astype(np.float64), _rows(theirs).numpy().astype(np.float64)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    gram = x.T @ x
    gram += _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return torch.from_numpy(np.linalg.solve(gram, x.T @ y).astype(np.float32))
