"""Where a pass that trains keeps what it has, and to whom it says how far it is.

What was trained lies there as a model, named by the passes up to it: a recipe that begins as an
earlier one did goes on behind it, and so does a run after a kill. What is being trained has a
folder of its own for its checkpoints, which goes when it is done.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from compression import durable
from compression.job import OutputSpec, PassSpec
from compression.words import Words

NAME = "recovery"
"""The pass that trains."""
_HARMLESS = frozenset({"stored", "packed"})
"""Passes that compare with nothing, and so may run behind any model that was kept."""


@dataclass(frozen=True)
class Workplace:
    """For one model, its inputs and this code."""

    folder: Path
    report: Callable[[str, float], None]
    """Hears in words what is being trained, and which fraction of it is done."""
    outputs: tuple[OutputSpec, ...] = ()
    """What the model's outputs mean."""


class _Passes(Words):
    passes: tuple[PassSpec, ...]


def place(passes: Sequence[PassSpec], workplace: Workplace) -> Workplace:
    """The folder of the last of these passes, made where it is missing."""
    folder = workplace.folder / f"training-{_name(passes)}"
    folder.mkdir(parents=True, exist_ok=True)
    return replace(workplace, folder=folder)


def keep(model: onnx.ModelProto, passes: Sequence[PassSpec], workplace: Workplace) -> None:
    """Keep what the last of these passes has trained, and drop its checkpoints."""
    durable.replace(_file(passes, workplace), model.SerializeToString())
    drop(passes, workplace)


def drop(passes: Sequence[PassSpec], workplace: Workplace) -> None:
    """Forget what the last of these passes had on the way."""
    shutil.rmtree(place(passes, workplace).folder, ignore_errors=True)


def find(
    passes: Sequence[PassSpec], workplace: Workplace, *, exact: frozenset[str]
) -> tuple[onnx.ModelProto, int, bool]:
    """Find what was trained of the most of these passes: the model, and how many passes made it.

    Zero passes: nothing is there. The last value says whether all of them are in `exact` or train:
    whether the model is what later passes approximate.
    """
    for count in range(len(passes), 0, -1):
        done, left = passes[:count], passes[count:]
        if done[-1].name != NAME:
            continue
        comparable = all(one.name in exact or one.name == NAME for one in done)
        if not comparable and any(one.name not in _HARMLESS for one in left):
            continue
        with contextlib.suppress(Exception):  # protobuf has errors of its own
            content = _file(done, workplace).read_bytes()
            return onnx.load_model_from_string(content), count, comparable
    return onnx.ModelProto(), 0, True


def _file(passes: Sequence[PassSpec], workplace: Workplace) -> Path:
    return workplace.folder / f"trained-{_name(passes)}.onnx"


def _name(passes: Sequence[PassSpec]) -> str:
    words = _Passes(passes=tuple(passes)).to_json()
    return hashlib.sha256(words).hexdigest()[:16]
