"""The folder that a compression job works in: one job at a time, of one model, and it says which.

What is measured is remembered below it under names that hang on the model, the inputs and the
device, so that a run after a kill goes on where it was, and a run with other arguments finds only
what still holds.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from agent.errors import BadInput, Unavailable
from compression import durable, ladder
from compression.errors import BadInputs
from compression.job import CompressJob, Sha256
from compression.words import Words

NOTE = "job.json"
_LOCK = "lock"
_FILES = ("model", "calibration", "evaluation")
_NOTES = ("tried-*", "chosen-*")


class Order(Words):
    """What a folder was made with: the job, and its files by what they hold."""

    version: Literal[1] = 1
    job: CompressJob
    sha256: dict[str, Sha256]


@dataclass(frozen=True)
class Folder:
    """A folder while this job holds it."""

    path: Path
    resumed: bool
    """Whether an earlier run has measured something here."""
    changed: tuple[str, ...]
    """What the earlier run was asked otherwise, in words."""


@contextlib.contextmanager
def held(job: CompressJob) -> Iterator[Folder]:
    """Hold `job.out_dir` for one job; where nothing was measured, nothing is left behind.

    Raises:
        BadInput: it cannot be written, or holds the work of another model.
        Unavailable: another process works in it.
    """
    path = Path(job.out_dir)
    work = path / "work"
    fresh = not path.exists()
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BadInput(f"cannot write to {path}: {error.strerror}") from error
    try:
        _take(lock, path)
        try:
            yield _begun(job, path, work)
        finally:
            _tidy(path, work, fresh=fresh)
    finally:
        os.close(lock)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Unavailable(f"cannot use {path}: another compression works in it") from error


def _begun(job: CompressJob, path: Path, work: Path) -> Folder:
    now = Order(job=job, sha256=_hashes(job))
    before = _before(work)
    model = before.sha256["model"] if before else _of_ladder(path)
    if model is not None and model != now.sha256["model"]:
        raise BadInput(
            f"cannot use {path}: it holds the work on another model ({model[:12]}; "
            f"{Path(job.model_path).name} is {now.sha256['model'][:12]}); give another --out"
        )
    try:
        durable.replace(work / NOTE, now.to_json())
    except OSError as error:
        raise BadInput(f"cannot write to {path}: {error.strerror}") from error
    return Folder(path, _measured(work), differences(before, now) if before else ())


def differences(before: Order, now: Order) -> tuple[str, ...]:
    """Name what two orders for one model ask differently, with both values."""
    found = [
        f"other {name} inputs"
        for name in _FILES[1:]
        if before.sha256.get(name) != now.sha256.get(name)
    ]
    old, new = (order.job.model_dump(mode="json", exclude_none=True) for order in (before, now))
    apart = {"model_name", "out_dir", "budget", *(f"{name}_path" for name in _FILES)}
    pairs = [(name, old.get(name), new.get(name)) for name in CompressJob.model_fields
             if name not in apart]  # fmt: skip
    bounds = sorted(old["budget"].keys() | new["budget"].keys())
    pairs += [(name, old["budget"].get(name), new["budget"].get(name)) for name in bounds]
    for name, was, is_now in pairs:
        if was != is_now:
            plain = all(isinstance(value, int | float | None) for value in (was, is_now))
            values = f"{name} {_shown(is_now)} (was {_shown(was)})"
            found.append(values if plain else f"other {name}")
    return tuple(found)


def _shown(value: object) -> str:
    return "open" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _hashes(job: CompressJob) -> dict[str, str]:
    found = {}
    for name in _FILES:
        path = getattr(job, f"{name}_path")
        if path is not None:
            try:
                with Path(path).open("rb") as file:
                    found[name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise BadInput(f"cannot read {path}: {error.strerror}") from error
    return found


def _before(work: Path) -> Order | None:
    """What the earlier run was asked; None where there was none, or its note is damaged."""
    try:
        order = Order.model_validate_json((work / NOTE).read_bytes())
    except (OSError, ValidationError):
        return None
    return order if "model" in order.sha256 else None


def _of_ladder(path: Path) -> str | None:
    with contextlib.suppress(BadInputs):
        return ladder.load(path).model.sha256
    return None


def _measured(work: Path) -> bool:
    return any(True for pattern in _NOTES for _ in work.glob(pattern))


def _tidy(path: Path, work: Path, *, fresh: bool) -> None:
    """Leave nothing where nothing was measured: no run could go on from there."""
    if _measured(work) or (path / ladder.FILE).exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    if fresh:
        with contextlib.suppress(OSError):  # something else is in it
            path.rmdir()
