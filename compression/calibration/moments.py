"""What the inputs of one layer are in a compressed model and in the original, as second moments.

Of each sample the layer's input is unfolded to the rows that its weights are multiplied with, the
same positions in both models. Memory is bounded: layers are taken in parts, each a pass over the
samples, and of a sample at most `POSITIONS` rows are taken.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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
class Pair:
    """The input of one layer: its name in both models, and how it is read.

    Without a window the rows are along the last axis. `inputs` is how many values a row has.
    """

    variant: str
    original: str
    inputs: int
    window: Window | None = None

    @property
    def groups(self) -> int:
        """Into how many rows, with weights of their own, the channels are divided."""
        return self.window.groups if self.window else 1


@dataclass
class Moments:
    """Of rows x in the original and y in the variant, centred, float64.

    `gram` [groups, inputs, inputs] is the mean of y y^T, `cross` that of x y^T, both about the
    means `original_mean` and `variant_mean` [groups, inputs].
    """

    rows: int
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    original_mean: NDArray[np.float64]
    variant_mean: NDArray[np.float64]


@dataclass
class _Sums:
    pair: Pair
    rows: int = 0
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, original: NDArray[Any], variant: NDArray[Any], rng: np.random.Generator) -> None:
        x, y = unfold(self.pair, original, variant, rng)
        self.rows += x.shape[1]
        ahead = np.swapaxes(y, 1, 2)
        # Products in float32, sums over samples in double: rows are few, samples many.
        for name, term in (
            ("gram", ahead @ y),
            ("cross", np.swapaxes(x, 1, 2) @ y),
            ("x", x.sum(axis=1, dtype=np.float64)),
            ("y", y.sum(axis=1, dtype=np.float64)),
        ):
            if name in self.sums:
                self.sums[name] += term
            else:
                self.sums[name] = term.astype(np.float64)

    def moments(self) -> Moments | None:
        if not self.rows or not all(np.isfinite(total).all() for total in self.sums.values()):
            return None
        x, y = (self.sums[name] / self.rows for name in ("x", "y"))
        gram = self.sums["gram"] / self.rows - y[:, :, None] * y[:, None, :]
        cross = self.sums["cross"] / self.rows - x[:, :, None] * y[:, None, :]
        return Moments(self.rows, gram, cross, original_mean=x, variant_mean=y)


def state_bytes(pair: Pair) -> int:
    """What the sums of one layer hold, and a product beside them."""
    per_group = pair.inputs // pair.groups
    return _BYTES * 3 * pair.groups * per_group * per_group


def stream(
    variant: onnx.ModelProto,
    original: onnx.ModelProto,
    feeds: Callable[[], Iterable[Arrays]],
    *,
    wanted: Mapping[str, Pair],
    work_memory_mib: float,
    threads: int,
    seed: int,
) -> Iterator[tuple[str, Moments]]:
    """Yield the moments of each layer in `wanted`, by its key, as soon as they are known.

    Layers whose sums alone take more than `work_memory_mib`, and those with inputs that are not
    finite, are left out. Equal samples and `seed` give equal results.

    Raises:
        BadModel: a model does not run, or lacks a tensor.
        BadInputs: there are no samples.
    """
    bound = work_memory_mib * 2**20
    sizes = {key: state_bytes(pair) for key, pair in wanted.items()}
    fitting = {key: size for key, size in sizes.items() if size <= bound}
    for part in taps.batches(fitting, bound=bound):
        sums = {key: _Sums(wanted[key]) for key in part}
        _pass(variant, original, feeds(), sums, threads=threads, seed=seed)
        while sums:
            key = next(iter(sums))
            found = sums.pop(key).moments()
            if found is not None:
                yield key, found


def _pass(
    variant: onnx.ModelProto,
    original: onnx.ModelProto,
    feeds: Iterable[Arrays],
    sums: Mapping[str, _Sums],
    *,
    threads: int,
    seed: int,
) -> None:
    pairs = [one.pair for one in sums.values()]
    sides = [
        _session(original, [pair.original for pair in pairs], threads=threads),
        _session(variant, [pair.variant for pair in pairs], threads=threads),
    ]
    seen = False
    for number, sample in enumerate(feeds):
        seen = True
        first, second = (
            {**sample, **(runtime.run(session, sample) if session else {})} for session in sides
        )
        for at, one in enumerate(sums.values()):
            rng = np.random.default_rng((seed, number, at))
            one.add(first[one.pair.original], second[one.pair.variant], rng)
    if not seen:
        raise BadInputs("cannot gather moments: there are no samples")


def _session(model: onnx.ModelProto, names: list[str], *, threads: int) -> Any:
    given = {value.name for value in model.graph.input}
    made = [name for name in dict.fromkeys(names) if name not in given]
    return taps.session(taps.outputs(model, made), threads=threads) if made else None


def unfold(
    pair: Pair, original: NDArray[Any], variant: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the rows of both, float32 [groups, rows, inputs of a group], at equal positions."""
    if pair.window is None:
        flat = [one.reshape(-1, one.shape[-1]) for one in (original, variant)]
        at = _some(flat[0].shape[0], rng)
        x, y = (one[at][None].astype(np.float32) for one in flat)
        return x, y
    views = [_windows(one, pair.window) for one in (original, variant)]
    rank = len(pair.window.kernel)
    places = (views[0].shape[0], *views[0].shape[2 : 2 + rank])
    where = np.unravel_index(_some(int(np.prod(places)), rng), places)
    x, y = (_rows(view, where, pair.window.groups) for view in views)
    return x, y


def _some(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if count <= POSITIONS:
        return np.arange(count)
    return np.sort(rng.choice(count, POSITIONS, replace=False, shuffle=False))


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
