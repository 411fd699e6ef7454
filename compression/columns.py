"""Where the samples of one name lie in an .npz: rows of one array, or an array for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.errors import BadInputs
from compression.npz import Stored


@dataclass(frozen=True)
class Column:
    """Where the samples of one name lie: one array for all of them, or one for each."""

    name: str
    whole: Stored | None
    each: tuple[Stored, ...]
    rows: int | None
    """Rows of `whole` that make one sample; None: an element without a batch axis."""

    def __len__(self) -> int:
        if self.whole is None:
            return len(self.each)
        return self.whole.shape[0] // (self.rows or 1)

    def read(self, index: int, rank: int | None) -> NDArray[Any]:
        """Read sample `index`; `rank` says whether a batch axis is missing (None: unknown)."""
        if self.whole is None:
            array = self.each[index].read()
            return array[np.newaxis] if rank is not None and array.ndim == rank - 1 else array
        if self.rows is None:
            # Of an input without dims a row is numpy's scalar, which onnxruntime does not take.
            return np.asarray(self.whole.read_rows(index, 1)[0])
        return self.whole.read_rows(index * self.rows, self.rows)


def find(
    name: str, arrays: Mapping[str, Stored], rank: int | None, leading: tuple[int, ...]
) -> Column:
    """Find the samples of `name`, whose tensors have `rank` and the first dims `leading`.

    Raises:
        BadInputs: there are none, or one of them is missing, or rows do not fill a sample.
    """
    if name in arrays:
        whole = arrays[name]
        if not whole.shape:
            raise BadInputs(f"cannot use array {name!r}: a single number, not samples")
        if rank is not None and len(whole.shape) == rank + 1:
            return Column(name, whole, (), None)
        rows = max(1, leading[0]) if leading else 1
        if whole.shape[0] % rows:
            raise BadInputs(
                f"cannot use array {name!r}: {whole.shape[0]} rows, the model takes {rows} at once"
            )
        return Column(name, whole, (), rows)
    parts = sorted(key for key in arrays if key.rpartition("::")[0] == name)
    wanted = [f"{name}::{index:04d}" for index in range(len(parts))]
    if not parts or parts != sorted(wanted):
        missing = next((key for key in wanted if key not in parts), name)
        raise BadInputs(f"cannot find array {missing!r} among {sorted(arrays)[:8]}")
    return Column(name, None, tuple(arrays[key] for key in wanted), None)


def shape(column: Column, index: int, rank: int) -> tuple[int, ...]:
    """Return the shape of one sample, with its batch axis."""
    if column.whole is None:
        shape = column.each[index].shape
        return (1, *shape) if len(shape) == rank - 1 else shape
    rest = column.whole.shape[1:]
    return rest if column.rows is None else (column.rows, *rest)


def fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a shape is what the model wants (-1: any dim)."""
    return len(shape) == len(wanted) and all(
        want in {-1, have} for have, want in zip(shape, wanted, strict=True)
    )
