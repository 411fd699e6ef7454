"""Whether a changed model still answers as the original did: both are run, at two shapes."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.errors import BadModel
from compression.packed import reading
from compression.regular.reading import bad

TOLERANCE = 1e-3
"""The largest relative difference that a rewriting may cause."""
HALF_TOLERANCE = 1e-2
"""The same for models that compute in float16, whose own steps are 2^-11."""
REPEATABLE = 1e-6
"""The largest relative difference between two runs of one model on the same inputs."""
SIZES = (8, 64, 32, 224, 640, 16, 1, 512, 2)
"""What a dynamic dim behind the batch may be, the cheap and the common ones first."""
_MOST_ELEMENTS = 2**24
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Oracle:
    """What the original answers: for each of one or two sets of inputs, its outputs by name."""

    cases: tuple[tuple[Arrays, Arrays], ...]
    tolerance: float = TOLERANCE
    optimization: str = "disabled"

    def gap(self, model: Path) -> float:
        """The largest relative difference of a model's answers; infinite where it does not run."""
        try:
            session = runtime.session(model, _quiet(self.optimization))
            answers = [runtime.run(session, feeds) for feeds, _ in self.cases]
        except BadModel:
            return float("inf")
        wanted = [outputs for _, outputs in self.cases]
        if any(list(got) != list(want) for got, want in zip(answers, wanted, strict=True)):
            return float("inf")
        return max(difference(w, g) for w, g in zip(wanted, answers, strict=True))

    def accepts(self, model: Path) -> bool:
        """Whether a model loads, runs and answers as the original."""
        return self.gap(model) <= self.tolerance


def ask(
    model_path: Path, *, sample: Arrays | None, tolerance: float = TOLERANCE, seed: int = 0
) -> Oracle:
    """Run the original on `sample` (else on random inputs), and at a second shape if it has any.

    Raises:
        BadModel: it does not load or run, answers NaN, or answers differently each time.
    """
    session, optimization = _session(model_path)
    first = sample if sample is not None else _first(session, seed)
    outputs = _answers(model_path, session, first, synthetic=sample is None)
    cases = [(first, outputs)]
    for feeds in _others(session, first):
        try:
            cases.append((feeds, runtime.run(session, feeds)))
            break
        except BadModel:  # not every size divides: a stride may want multiples of 32
            continue
    return Oracle(tuple(cases), tolerance, optimization)


def difference(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> float:
    """The largest relative difference over all outputs: max |a - b| / max |a|."""
    worst = 0.0
    for name, a in wanted.items():
        b = got[name]
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            worst = max(worst, 0.0 if repr(a) == repr(b) else float("inf"))  # sequences and maps
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf")
        if a.size and a.dtype.kind in "biufc":
            x, y = a.astype(np.float64), b.astype(np.float64)
            scale = max(float(np.abs(x[np.isfinite(x)], dtype=float).max(initial=0.0)), 1e-12)
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            with np.errstate(invalid="ignore"):  # inf - inf, where both are the same
                gap = np.where(same, 0.0, np.abs(x - y))
            worst = max(worst, float(np.nan_to_num(gap, nan=np.inf).max()) / scale)
        elif a.size and not np.array_equal(a, b):
            return float("inf")
    return worst


def _session(model_path: Path) -> tuple[Any, str]:
    """Without optimizations, some of which change answers (Pad into MaxPool); else with all."""
    try:
        return runtime.session(model_path, _quiet("disabled")), "disabled"
    except BadModel:  # an operator without a kernel, that folding would have taken out
        return runtime.session(model_path, _quiet("all")), "all"


def _quiet(optimization: str) -> Any:
    """Silent: here a run that fails is an answer, not news."""
    options = runtime.options(optimization=optimization)
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    return options


def _answers(model_path: Path, session: Any, feeds: Arrays, *, synthetic: bool) -> Arrays:
    outputs = runtime.run(session, feeds)
    for name, values in outputs.items():
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not values.size:
            continue
        count = int(np.isnan(values).sum())
        # Random inputs may leave a function's domain (the logarithm of -1); real ones must not.
        if count == values.size or (count and not synthetic):
            raise bad(model_path, f"output {name!r} is NaN in {count} of {values.size} values")
    again = difference(outputs, runtime.run(session, feeds))
    if again > REPEATABLE:
        raise bad(
            model_path,
            f"it answers differently each time ({again:.1e} apart on the same inputs)"
            f"{_chance(model_path)}",
        )
    return outputs


def _chance(model_path: Path) -> str:
    """Name the operators that draw random numbers."""
    from_chance = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike",
                   "Multinomial", "Bernoulli", "Dropout"}  # fmt: skip
    with reading.opened(model_path) as plain:
        model = onnx.load(plain, load_external_data=False)
    found = sorted({node.op_type for node in model.graph.node} & from_chance)
    return f": {', '.join(found)}" if found else ""


def _first(session: Any, seed: int) -> Arrays:
    """Random inputs on which the original runs; dynamic dims at the first sizes that work."""
    problem: BadModel | None = None
    dynamic = any(-1 in spec.shape for spec in runtime.inputs(session))
    sizes = SIZES if dynamic else SIZES[:1]
    # Whole numbers may be indices into what has a single row: at last they are all 0.
    for most, size, layout in itertools.product((1, 0), sizes, (_sequence, _batch_inside)):
        feeds = _random(session, functools.partial(layout, size), most=most, seed=seed)
        if feeds is None:
            continue
        try:
            runtime.run(session, feeds)
        except BadModel as error:
            problem = problem or error
        else:
            return feeds
    raise problem or BadModel("cannot make inputs for the model: they would be too large")


def _sequence(size: int, axis: int, rank: int) -> int:
    """One sample; every other dynamic dim is a length."""
    del rank
    return size if axis else 1


def _batch_inside(size: int, axis: int, rank: int) -> int:
    """As recurrent states are laid out: only the last axis of two or more is a length."""
    return size if axis and axis in {rank - 1, rank - 2} and rank != 3 else 1


def _others(session: Any, first: Arrays) -> Iterator[Arrays]:
    """Inputs of other shapes, each a guess that the model may not take: real values, tiled."""
    dynamic = {
        (spec.name, at)
        for spec in runtime.inputs(session)
        for at, dim in enumerate(spec.shape)
        if dim < 0
    }
    leading = {one for one in dynamic if one[1] == 0}
    for chosen in (dynamic, dynamic - leading, leading):
        if chosen:
            yield {name: _tiled(array, name, chosen) for name, array in first.items()}


def _tiled(array: NDArray[Any], name: str, twice: set[tuple[str, int]]) -> NDArray[Any]:
    repeats = [2 if (name, at) in twice else 1 for at in range(array.ndim)]
    return np.ascontiguousarray(np.tile(array, repeats))


def _random(
    session: Any, size_of: Callable[[int, int], int], *, most: int, seed: int
) -> dict[str, NDArray[Any]] | None:
    """Normal floats and whole numbers up to `most`; None where they would be absurdly large."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, NDArray[Any]] = {}
    for spec in runtime.inputs(session):
        rank = len(spec.shape)
        shape = [dim if dim >= 0 else size_of(at, rank) for at, dim in enumerate(spec.shape)]
        if np.prod(shape, dtype=float) > _MOST_ELEMENTS:
            return None
        if np.issubdtype(np.dtype(spec.dtype), np.inexact):
            feeds[spec.name] = np.asarray(rng.normal(size=shape), spec.dtype)
        else:
            feeds[spec.name] = np.asarray(rng.integers(0, most + 1, shape), spec.dtype)
    return feeds
