"""Inputs on disk (.npz): checked as they are opened, read one sample at a time.

One array per model input under the input's own name, samples on the leading axis; ragged inputs
as `NAME::0000`, `NAME::0001`, ...; labels as `::labels`; the number of each sample's source as
`::source`; the outputs that a probe expects as `::expected::NAME`. Memory does not grow with the
number of samples: stored arrays are read in place, compressed ones are unpacked once into an
unnamed temporary file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from compression import columns
from compression.errors import BadInputs
from compression.job import InputSpec
from compression.npz import Archive

Arrays = dict[str, NDArray[Any]]
LABELS = "::labels"
SOURCE = "::source"
EXPECTED = "::expected::"
DEFAULT_BYTES = 2 * 1024**3
"""The most bytes that all arrays of one file may hold, unpacked."""


class Samples:
    """An opened file of inputs. Close it, or use it in a `with` block."""

    def __init__(self, path: Path, archive: Archive, specs: Sequence[InputSpec]) -> None:
        self._path = path
        self._archive = archive
        self._specs = {spec.name: spec for spec in specs}
        names = {name.split("::")[0] for name in archive.arrays if not name.startswith("::")}
        if unknown := sorted(names - set(self._specs)):
            raise self._bad(f"array {unknown[0]!r} is no input of the model ({self._known()})")
        self._columns = {
            name: columns.find(name, archive.arrays, len(spec.shape), spec.shape[:1])
            for name, spec in self._specs.items()
        }
        self._expected = {
            name.removeprefix(EXPECTED).split("::")[0] for name in archive.arrays
            if name.startswith(EXPECTED)
        }  # fmt: skip
        self._check()

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Fine to call twice."""
        self._archive.close()

    def sample(self, index: int) -> Arrays:
        """Sample `index` by input name, with a leading batch axis (1, or the model's own).

        Raises:
            BadInputs: it holds NaN or an infinity, or the file cannot be read any more.
        """
        arrays = {
            name: column.read(index, len(self._specs[name].shape))
            for name, column in self._columns.items()
        }
        for name, array in arrays.items():
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                raise self._bad(f"input {name!r} of sample {index} holds NaN or an infinity")
        return arrays

    def expected(self, index: int) -> Arrays:
        """Return what a probe expects for sample `index`, by output name; empty without one."""
        arrays = self._archive.arrays
        return {
            name: columns.find(EXPECTED + name, arrays, None, (1,)).read(index, None)
            for name in sorted(self._expected)
        }

    def labels(self) -> NDArray[Any] | None:
        """Return the labels, samples on the leading axis, or None where there are none."""
        stored = self._archive.arrays.get(LABELS)
        return None if stored is None else stored.read()

    def sources(self) -> tuple[int, ...] | None:
        """Return the number of each sample's source, or None where nobody says.

        Samples of one source are nearly the same: crops of one photograph, frames of one film.
        """
        stored = self._archive.arrays.get(SOURCE)
        return None if stored is None else tuple(int(source) for source in stored.read())

    def shapes(self, index: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of sample `index` without reading its values."""
        return {
            name: columns.shape(column, index, len(self._specs[name].shape))
            for name, column in self._columns.items()
        }

    def largest(self) -> int:
        """Return the index of the sample with the most elements."""
        sizes = [
            sum(int(np.prod(shape)) for shape in self.shapes(index).values())
            for index in range(len(self))
        ]
        return int(np.argmax(sizes))

    def _check(self) -> None:
        counts = {name: len(column) for name, column in self._columns.items()}
        if 0 in counts.values() or not counts:
            raise self._bad("it holds no samples")
        if len(set(counts.values())) > 1:
            raise self._bad(f"inputs have different numbers of samples: {counts}")
        labels = self._archive.arrays.get(LABELS)
        if labels is not None and labels.shape[:1] != (len(self),):
            raise self._bad(f"labels of shape {labels.shape} for {len(self)} samples")
        source = self._archive.arrays.get(SOURCE)
        if source is not None and (source.shape != (len(self),) or source.dtype.kind not in "iu"):
            raise self._bad(
                f"{SOURCE} of shape {list(source.shape)} and {source.dtype}: one whole number "
                f"for each of the {len(self)} samples is wanted"
            )
        for name, column in self._columns.items():
            stored = (column.whole,) if column.whole else column.each
            wanted = self._specs[name]
            for index, one in enumerate(stored):
                if one is not None and one.dtype != np.dtype(wanted.dtype):
                    raise self._bad(
                        f"input {name!r} is {one.dtype}, the model wants {wanted.dtype}"
                    )
                shape = columns.shape(column, index, len(wanted.shape))
                if not columns.fits(shape, wanted.shape):
                    raise self._bad(
                        f"input {name!r} has samples of shape {list(shape)}, the model wants "
                        f"{list(wanted.shape)} (-1: any)"
                    )

    def _known(self) -> str:
        return ", ".join(self._specs) or "it has none"

    def _bad(self, what: str) -> BadInputs:
        return BadInputs(f"cannot use inputs {self._path.name}: {what}")


def open_samples(
    path: Path, inputs: Sequence[InputSpec], *, most_bytes: int = DEFAULT_BYTES
) -> Samples:
    """Open and check an .npz of inputs for a model with these `inputs`.

    Raises:
        BadInputs: no such file, not an .npz, truncated, damaged, larger than `most_bytes`
            unpacked, object arrays, a missing or unknown name, a wrong dtype or shape, no samples.
    """
    archive = Archive(path, most_bytes=most_bytes)
    try:
        return Samples(path, archive, inputs)
    except BaseException:
        archive.close()
        raise


def write(
    path: Path,
    samples: Sequence[Mapping[str, NDArray[Any]]],
    *,
    labels: NDArray[Any] | None = None,
    expected: Sequence[Mapping[str, NDArray[Any]]] = (),
) -> None:
    """Write samples as `Samples.sample` gives them (and what a probe expects of each)."""
    arrays: Arrays = {}
    for prefix, rows in (("", samples), (EXPECTED, expected)):
        for name in rows[0] if rows else ():
            arrays |= _pack(prefix + name, [np.asarray(row[name]) for row in rows])
    if labels is not None:
        arrays[LABELS] = labels
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _pack(name: str, rows: list[NDArray[Any]]) -> Arrays:
    if len({row.shape for row in rows}) > 1:
        return {f"{name}::{index:04d}": row for index, row in enumerate(rows)}
    if rows[0].ndim and rows[0].shape[0] == 1:
        return {name: np.concatenate(rows)}
    return {name: np.stack(rows)}
