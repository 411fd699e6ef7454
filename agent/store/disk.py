"""The disk as something that may be full, failing or read-only: errors with figures."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from agent.errors import Unavailable

_WHY = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write",
    errno.EROFS: "the disk is read-only",
}
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What a file system says that does not know a call."""


@contextlib.contextmanager
def trouble(what: str) -> Iterator[None]:
    """Turn an OSError of the block into `cannot WHAT: why`.

    Raises:
        Unavailable: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        why = _WHY.get(error.errno or 0, str(error))
        raise Unavailable(f"cannot {what}: {why}") from error


def beside(target: Path, suffix: str) -> Path:
    """A file that belongs to `target`, beside it."""
    return target.with_name(f"{target.name}.{suffix}")


def allocate(file: int, size_bytes: int) -> None:
    """Take the room now, so that a disk that fills up meanwhile ends nothing halfway.

    Raises:
        OSError: there is no room.
    """
    try:
        os.posix_fallocate(file, 0, size_bytes)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        os.ftruncate(file, size_bytes)


def write_all(file: int, content: bytes, *, at: int) -> None:
    """Write all of `content` at a position, in as many calls as it takes.

    Raises:
        OSError: the disk is full or failing.
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written where `folder` is, or will be."""
    stat = os.statvfs(_existing(folder))
    return stat.f_bavail * stat.f_frsize


def total_bytes(folder: Path) -> int:
    """Bytes of the whole file system."""
    stat = os.statvfs(_existing(folder))
    return stat.f_blocks * stat.f_frsize


def allocated_bytes(path: Path) -> int:
    """Bytes on disk that `path` takes already; 0 where it is absent."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def mib(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 2**20:.1f} MiB"


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
