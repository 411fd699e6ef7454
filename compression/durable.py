"""Files that are old or new after a power cut, never half of each."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def replace(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write beside, sync, rename, sync the folder.

    Raises:
        OSError: the disk is full or failing; `path` is as it was, and nothing is left beside it.
    """
    with replacing(path, mode=mode) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the place of `path` at the end: as `replace`, in pieces.

    Raises:
        OSError: as `replace`.
    """
    beside = path.with_name(path.name + ".partial")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
