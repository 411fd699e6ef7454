"""What an agent stands on: its state folder, a folder in memory, and the keys that it obeys."""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Key

from agent.errors import BadConfig, BadInput, Unavailable
from agent.protocol import trust

log = logging.getLogger(__name__)

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of mode 0700 is made in it
"""Files here are in memory (shm_overview(7)): what must not touch the disk lies here."""


def own(folder: Path) -> Path:
    """Make the state folder and lock it: two agents in one would undo one another's work.

    One that was used before and has become read-only, as worn-out cards do, is used as it is:
    what serves goes on serving.

    Raises:
        BadConfig: it cannot be made or written.
        Unavailable: another agent holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _open_lock(folder / "lock")
    except OSError as error:
        raise BadConfig(f"cannot use the state folder {folder}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the process ends
    except OSError as error:
        raise Unavailable(f"cannot use {folder}: another agent works in it") from error
    return folder.resolve()


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        log.error("the disk of %s is read-only: nothing new can be kept", path.parent)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def trusted(folder: Path) -> Sequence[Key]:
    """The keys that this device obeys.

    Raises:
        BadConfig: one of them is not a key.
    """
    try:
        keys = trust.load_keys(folder)
    except (BadInput, OSError) as error:
        raise BadConfig(str(error)) from error
    if not keys:
        log.warning("no trusted key in %s: every command will be refused", folder)
    return keys


def place_in(memory: Path, state_dir: Path) -> Path:
    """Where one agent's folder lies in memory: after a kill the next one finds and clears it."""
    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:16]
    return memory / f"trimtab-{os.getuid()}-{name}"


def in_memory(state_dir: Path, *, memory: Path = MEMORY) -> Path:
    """An empty folder of mode 0700 for one agent, in memory where the device has such a place.

    Raises:
        BadConfig: neither there nor in the state folder can it be made.
    """
    for folder in (place_in(memory, state_dir), state_dir / "run" / "live"):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700, parents=folder.is_relative_to(state_dir))
        except OSError as error:
            log.warning("cannot use %s: %s", folder, error)
        else:
            return folder
    raise BadConfig(f"cannot make a folder for live inputs in {memory} or {state_dir}")
