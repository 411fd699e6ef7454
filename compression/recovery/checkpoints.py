"""What a training has so far, in one file that is old or new after a power cut, never half."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression import durable

NAME = "checkpoint.npz"
_NUMBERS = ("rate", "weights", "spent_s", "steps", "best_score", "drawn", "since", "next_look")
_WHOLE = dict.fromkeys(("steps", "drawn", "since"), int)


@dataclass
class State:
    """Where a training stands. Times are in seconds of training."""

    rate: float = 0.0
    """0: still to be found."""
    weights: float = 1.0
    """The share of the rate for weights of 8 bits."""
    spent_s: float = 0.0
    steps: int = 0
    best_score: float = 1.0
    """Of the best so far, in parts of what it was at the beginning; lower is better."""
    drawn: int = 0
    """Steps for which samples were drawn: also of those that taught nothing."""
    since: int = 0
    """Looks without a better one."""
    next_look: float = 0.0
    """The progress at which it is looked at again; 0 before the first step."""
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By part ("now", "best", "first", "second"), then by name."""


def save(path: Path, state: State, *, key: str) -> None:
    """Write a state; `key` says what it belongs to.

    Raises:
        OSError: the disk is full; what was there is still there.
    """
    arrays: dict[str, Any] = {
        f"{part}/{name}": tensor.detach().numpy()
        for part, held in state.tensors.items()
        for name, tensor in held.items()
    }
    arrays["::numbers"] = np.array([getattr(state, name) for name in _NUMBERS], np.float64)
    arrays["::key"] = np.array(key)
    with durable.replacing(path) as file:  # not through memory, which holds it all already
        np.savez(file, **arrays)


def load(path: Path, *, key: str) -> State | None:
    """Read a state; None where there is none, it is not whole, or it belongs to something else."""
    with contextlib.suppress(Exception):  # whatever a damaged file makes numpy raise
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["::key"]) != key:
                return None
            found = zip(_NUMBERS, arrays["::numbers"].tolist(), strict=True)
            numbers: dict[str, Any] = {name: _WHOLE.get(name, float)(one) for name, one in found}
            tensors: dict[str, dict[str, Any]] = {}
            for name in arrays.files:
                part, _, own = name.partition("/")
                if own:
                    tensors.setdefault(part, {})[own] = torch.from_numpy(arrays[name])
        return State(**numbers, tensors=tensors)
    return None
