"""Whether a model's answers can be judged at all: numbers, and the same each time."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression import runtime
from compression.errors import BadModel

Arrays = Mapping[str, NDArray[Any]]
SAME = 1e-3
"""Two runs may differ by this share of the largest value: threads add in another order."""


def ask(name: str, loaded: Any, feeds: Arrays, *, sample: int) -> dict[str, NDArray[Any]]:
    """Run `loaded` on sample number `sample`; its outputs by name.

    Raises:
        BadModel: it fails, or an output holds NaN although no input does.
    """
    outputs = runtime.run(loaded, feeds)
    for output, array in outputs.items():
        if np.issubdtype(array.dtype, np.inexact) and np.isnan(array).any():
            count = int(np.isnan(array).sum())
            raise BadModel(
                f"cannot judge {name}: output {output!r} holds NaN ({count} of {array.size} "
                f"values) on sample {sample}, which holds none"
            )
    return outputs


def ask_twice(name: str, loaded: Any, feeds: Arrays, *, sample: int) -> None:
    """Check that the same inputs get the same answer.

    Raises:
        BadModel: they do not (a random operator, dropout in training), or as `ask`.
    """
    first, second = (ask(name, loaded, feeds, sample=sample) for _ in range(2))
    for output, array in first.items():
        other = second[output]
        if array.shape != other.shape:
            raise BadModel(
                f"cannot judge {name}: it answers differently each time (output {output!r} of "
                f"sample {sample} has shape {list(array.shape)}, then {list(other.shape)})"
            )
        if (far := _apart(array, other)) > SAME:
            raise BadModel(
                f"cannot judge {name}: it answers differently each time (output {output!r} of "
                f"sample {sample} moved by {far:.1%} of its largest value)"
            )


def _apart(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The largest difference, as a share of the largest finite value."""
    if first.size == 0 or np.array_equal(first, second):
        return 0.0
    if not np.issubdtype(first.dtype, np.number):
        return 1.0
    one, other = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(one) & np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite]):
        return 1.0
    largest = float(np.abs(one[finite]).max(initial=0.0))
    return float(np.abs(one[finite] - other[finite]).max(initial=0.0)) / max(largest, 1e-30)
