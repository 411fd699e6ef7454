"""What a training has so far, in one file that is old or new after a power cut, never half."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compression import durable

NAME = "checkpoint.npz"


@dataclass
class State:
    """Where a training stands. Times are in seconds of training."""

    rate: float = 0.0
    """0: still to be found."""
    spent_s: float = 0.0
    steps: int = 0
    best_score: float = 1.0
    """Of the best so far, in parts of what it was at the beginning; lower is better."""
    evaluations: int = 0
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
    numbers = (state.rate, state.spent_s, state.steps, state.best_score, state.evaluations)
    arrays["::numbers"] = np.array(numbers, np.float64)
    arrays["::key"] = np.array(key)
    with durable.replacing(path) as file:  # not through memory, which holds it all already
        np.savez(file, **arrays)


def load(path: Path, *, key: str) -> State | None:
    """Read a state; None where there is none, it is not whole, or it belongs to something else."""
    with contextlib.suppress(Exception):  # whatever a damaged file makes numpy raise
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["::key"]) != key:
                return None
            rate, spent_s, steps, best, evaluations = arrays["::numbers"].tolist()
            tensors: dict[str, dict[str, Any]] = {}
            for name in arrays.files:
                part, _, own = name.partition("/")
                if own:
                    tensors.setdefault(part, {})[own] = torch.from_numpy(arrays[name])
        return State(rate, spent_s, int(steps), best, int(evaluations), tensors)
    return None
