"""An ONNX model made regular: weights are initializers, BatchNormalization is folded, opset >= 13.

Each form of a model, the most regular first, is run beside the original at up to two shapes; the
first one that answers the same is taken, and the original itself is the last one. Each is tried
with what exporters write out in small operators fused (regular/fusing), then without.
"""

import contextlib
import ctypes
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from compression.errors import BadModel, OutOfBudget
from compression.packed import reading as packed
from compression.regular import (
    constants,
    equality,
    folding,
    halves,
    opsets,
    quantized,
    reading,
    shapes,
)
from compression.regular.fusing import rewriting

load = reading.load
difference = equality.difference
is_quantized = quantized.is_quantized
opset = opsets.version
_PREFIX = "regular-"


def regular(
    model_path: Path, *, sample: equality.Arrays | None = None, folder: Path | None = None
) -> onnx.ModelProto:
    """Make a model regular; names of inputs and outputs and custom metadata stay.

    `sample` is one run's inputs by name; without it random ones are made. `folder` holds files
    as large as the model while this runs. What is quantized already is returned as it is.

    Raises:
        BadModel: as `reading.load`; or it does not run, answers NaN, or differently each time.
        OutOfBudget: `folder` is full or cannot be written.
    """
    model = reading.load(model_path)
    metadata, half = list(model.metadata_props), halves.present(model)
    if quantized.is_quantized(model):
        equality.ask(model_path, sample=sample)
        return model
    del model  # each form reads the file anew: two copies would be one too many
    tolerance = equality.HALF_TOLERANCE if half else equality.TOLERANCE
    oracle = equality.ask(model_path, sample=sample, tolerance=tolerance)
    _give_back()
    with _scratch(folder) as scratch:
        path = scratch / "changed.onnx"
        for form, target in itertools.product(FORMS, TARGETS):
            if not _written(path, form, target, model_path, metadata):
                continue
            fused = scratch / "fused.onnx"
            for rules in rewriting.LEVELS:
                if _fused(path, fused, metadata, rules) and oracle.accepts(fused):
                    _give_back()
                    return _read(fused)
            if oracle.accepts(path):
                _give_back()
                return _read(path)
            _give_back()
    return reading.load(model_path)


def single_file(model_path: Path, target: Path) -> Path:
    """Where a model is packed, or has weights in other files, write it whole; returns its path.

    Raises:
        BadModel: as `reading.load`.
        OutOfBudget: `target` cannot be written.
    """
    if not reading.has_external_data(model_path) and not packed.is_packed(model_path):
        return model_path
    model = reading.load(model_path)
    beside = target.with_suffix(".tmp")
    try:
        onnx.save(model, beside)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutOfBudget(f"cannot write {target}: {error.strerror}") from error
    return target


def _whole(model_path: Path, scratch: Path) -> onnx.ModelProto:
    """Folded by onnxruntime and by our own rules; halves become floats first."""
    source, target = model_path, scratch / "folded.onnx"
    model = reading.load(model_path)
    if halves.present(model):
        if not halves.widen(model):
            raise BadModel("cannot widen halves inside of bodies")
        source = scratch / "wide.onnx"
        onnx.save(model, source)
    del model
    _give_back()
    folding.by_runtime(source, target)
    _give_back()
    folded = _read(target)
    constants.hoist(folded)
    shapes.fold(folded)
    folding.by_rules(folded)
    return folded


def _folded(model_path: Path, scratch: Path) -> onnx.ModelProto:
    """Folded by onnxruntime alone."""
    target = scratch / "folded.onnx"
    folding.by_runtime(model_path, target)
    return _read(target)


def _tidied(model_path: Path, scratch: Path) -> onnx.ModelProto:
    """Only tidied: constants are initializers."""
    del scratch
    return reading.load(model_path)


FORMS: tuple[Callable[[Path, Path], onnx.ModelProto], ...] = (_whole, _folded, _tidied)
"""The most regular first."""
TARGETS = (opsets.PREFERRED_OPSET, opsets.PER_CHANNEL_OPSET, None)
"""What an older opset is raised to, the best first; at last it stays."""


def _written(
    path: Path,
    form: Callable[[Path, Path], onnx.ModelProto],
    target: int | None,
    model_path: Path,
    metadata: list[onnx.StringStringEntryProto],
) -> bool:
    """Write one form of a model at one opset, if there is such; it is not held in memory then."""
    try:
        model = form(model_path, path.parent)
    except BadModel:
        return False
    if opsets.version(model) >= opsets.PER_CHANNEL_OPSET:
        if target != TARGETS[0]:
            return False  # tried already
    elif target is not None and not opsets.raise_to(model, target):
        return False
    constants.tidy(model, metadata=metadata)
    onnx.save(model, path)
    del model
    _give_back()
    return True


def _fused(
    path: Path,
    target: Path,
    metadata: list[onnx.StringStringEntryProto],
    rules: tuple[rewriting.Rule, ...],
) -> bool:
    """Write a form of a model in cheaper operators, if there are such.

    Some of them came with later opsets; where onnx knows no way there, the others are left.
    """
    model = _read(path)
    if opsets.version(model) < opsets.PREFERRED_OPSET:
        opsets.raise_to(model, opsets.PREFERRED_OPSET)
    if not rewriting.fuse(model, rules):
        return False
    constants.tidy(model, metadata=metadata)
    onnx.save(model, target)
    del model
    _give_back()
    return True


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # what onnxruntime wrote onto a full disk
        raise BadModel(f"cannot read {path.name}: {error}") from error


def _give_back() -> None:
    """Give freed memory back to the system: on a small board the next step needs it."""
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """A folder of our own inside `folder`; what a killed run left there is removed."""
    try:
        if folder is not None:
            for stale in folder.glob(f"{_PREFIX}*"):
                shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as made:
            yield Path(made)
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise OutOfBudget(f"cannot work in {where}: {error.strerror or error}") from error
