"""What the inputs of each layer have in common: their means and second moments.

Of each sample a layer's input is unfolded to the rows that its weights are multiplied with, for a
Conv those of its windows. Memory is bounded: layers are taken in parts, each a pass over the
samples, and of a sample at most `POSITIONS` rows are taken.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import taps
from compression.errors import BadInputs
from compression.statistics import Arrays

POSITIONS = 96
"""Of each sample: neighbours in an image say nearly the same."""
_BYTES = 8
_ADDING, _SOLVING = 3, 8
"""Matrices of one layer in memory: while rows are added up, and while a caller solves with them."""


@dataclass(frozen=True)
class Window:
    """How a Conv reads its input [N, C, ...]: one row for each output position."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | str
    """Begin of each axis, then end, as in ONNX; or `SAME_UPPER`, `SAME_LOWER`."""
    groups: int = 1


@dataclass(frozen=True)
class Input:
    """The input of one layer: the tensor, and how it is read.

    Without a window the rows are along the last axis. `inputs` is how many values all rows of one
    position have: those of each group together.
    """

    tensor: str
    inputs: int
    window: Window | None = None

    @property
    def groups(self) -> int:
        """Into how many rows, with weights of their own, the channels are divided."""
        return self.window.groups if self.window else 1


@dataclass(frozen=True)
class Moments:
    """Of `rows` rows y: their mean [groups, inputs of a group] and the mean of y y^T about it."""

    rows: int
    mean: NDArray[np.float64]
    gram: NDArray[np.float64]


class _Sums:
    """Adds up one layer's rows, sample by sample."""

    def __init__(self, read: Input) -> None:
        self.read = read
        self._rows = 0
        size = read.inputs // read.groups
        self._sum = np.zeros((read.groups, size))
        self._products = np.zeros((read.groups, size, size))

    def add(self, values: NDArray[Any], rng: np.random.Generator) -> None:
        rows = unfold(self.read, values, rng)
        self._rows += rows.shape[1]
        self._sum += rows.sum(axis=1, dtype=np.float64)
        # Products of one sample in float32, their sum in double: it is the samples that are many.
        with np.errstate(over="ignore"):  # what is not finite is left out, see `moments`
            self._products += np.swapaxes(rows, 1, 2) @ rows

    def moments(self) -> Moments | None:
        if not self._rows or not np.isfinite(self._products).all():
            return None
        mean = self._sum / self._rows
        gram = self._products / self._rows - mean[:, :, None] * mean[:, None, :]
        return Moments(self._rows, mean, gram)


def state_bytes(read: Input) -> int:
    """What one matrix for each group takes."""
    size = read.inputs // read.groups
    return _BYTES * read.groups * size * size


def stream(
    model: onnx.ModelProto,
    feeds: Callable[[], Iterable[Arrays]],
    *,
    wanted: Mapping[str, Input],
    work_memory_mib: float,
    threads: int,
    seed: int,
) -> Iterator[tuple[str, Moments]]:
    """Yield the moments of each layer's input in `wanted`, by its key, as soon as they are known.

    Layers whose matrices alone take more than `work_memory_mib`, and those with inputs that are not
    finite, are left out. Equal samples and `seed` give equal results.

    Raises:
        BadModel: the model does not run, or lacks a tensor.
        BadInputs: there are no samples.
    """
    bound = work_memory_mib * 2**20
    sizes = {key: state_bytes(read) for key, read in wanted.items()}
    fitting = {key: _ADDING * size for key, size in sizes.items() if _SOLVING * size <= bound}
    for part in taps.batches(fitting, bound=bound):
        sums = {key: _Sums(wanted[key]) for key in part}
        _pass(model, feeds(), sums, threads=threads, seed=seed)
        while sums:
            key = next(iter(sums))
            found = sums.pop(key).moments()
            if found is not None:
                yield key, found


def _pass(
    model: onnx.ModelProto,
    feeds: Iterable[Arrays],
    sums: Mapping[str, _Sums],
    *,
    threads: int,
    seed: int,
) -> None:
    given = {value.name for value in model.graph.input}
    readers: dict[str, list[_Sums]] = {}
    for one in sums.values():
        readers.setdefault(one.read.tensor, []).append(one)
    made = [name for name in readers if name not in given]
    session = taps.session(taps.outputs(model, made), threads=threads) if made else None
    seen = False
    for number, sample in enumerate(feeds):
        seen = True
        brought = runtime.each(session, sample) if session is not None else iter(())
        for name in readers.keys() & given:
            _add(readers[name], sample[name], (seed, number))
        for name, values in brought:
            _add(readers[name], values, (seed, number))
    if not seen:
        raise BadInputs("cannot gather moments: there are no samples")


def _add(readers: list[_Sums], values: NDArray[Any], seed: tuple[int, int]) -> None:
    for one in readers:
        one.add(values, np.random.default_rng(seed))


def unfold(
    read: Input, values: NDArray[Any], rng: np.random.Generator, *, most: int = POSITIONS
) -> NDArray[np.float32]:
    """Return rows that the weights are multiplied with, float32 [groups, rows, inputs of one].

    At most `most`, picked by `rng`. Inputs of a Conv are ordered as its weights: channel,
    then place in the kernel.
    """
    if read.window is None:
        flat = values.reshape(-1, values.shape[-1])
        return np.asarray(flat[_some(len(flat), rng, most)][None], np.float32)
    view = _windows(values, read.window)
    rank = len(read.window.kernel)
    places = (view.shape[0], *view.shape[2 : 2 + rank])
    where = np.unravel_index(_some(int(np.prod(places)), rng, most), places)
    return _rows(view, where, read.window.groups)


def _some(count: int, rng: np.random.Generator, most: int) -> NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    return np.sort(rng.choice(count, most, replace=False, shuffle=False))


def _windows(values: NDArray[Any], window: Window) -> NDArray[Any]:
    """A view [N, C, positions..., kernel...] of a padded copy."""
    spatial = values.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    pads = _pads(window, spatial, reach)
    padded = np.pad(values, [(0, 0), (0, 0), *pads])
    axes = tuple(range(2, 2 + len(spatial)))
    view = np.lib.stride_tricks.sliding_window_view(padded, tuple(reach), axis=axes)
    steps = tuple(slice(None, None, step) for step in window.strides)
    taken = tuple(slice(None, None, step) for step in window.dilations)
    picks = [slice(None), slice(None), *steps, *taken]
    picked: NDArray[Any] = view[tuple(picks)]
    return picked


def _pads(window: Window, spatial: tuple[int, ...], reach: list[int]) -> list[tuple[int, int]]:
    if not isinstance(window.pads, str):
        half = len(window.pads) // 2
        return list(zip(window.pads[:half], window.pads[half:], strict=True))
    pads = []
    for size, step, wide in zip(spatial, window.strides, reach, strict=True):
        total = max((-(-size // step) - 1) * step + wide - size, 0)
        less, more = total // 2, total - total // 2
        pads.append((less, more) if window.pads == "SAME_UPPER" else (more, less))
    return pads


def _rows(
    view: NDArray[Any], where: tuple[NDArray[np.int64], ...], groups: int
) -> NDArray[np.float32]:
    batch, *places = where
    at: list[Any] = [batch, slice(None), *places]
    picked = view[tuple(at)]  # [rows, C, kernel...]
    rows = picked.reshape(picked.shape[0], groups, -1)
    return np.ascontiguousarray(np.swapaxes(rows, 0, 1), np.float32)
