"""Which chunks of a file have come: 32 bytes that say which file, then one record for each.

A record carries the digest of the bytes that it stands for, so that whoever reads it can see
whether they reached the disk. Only ever appended to.
"""

import contextlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

DIGEST_BYTES = 16
"""Of the sha256 of a chunk's plain bytes: the first."""
_RECORD = struct.Struct(f">I{DIGEST_BYTES}s")
_IDENTITY_BYTES = 32


class Journal:
    """The journal at a path, open from the beginning; every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        """Open it, or make an empty one."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)

    def close(self) -> None:
        """Let go of the file. Fine twice."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1

    def resumed(self, identity: bytes) -> list[tuple[int, bytes]] | None:
        """The (position, digest) of all that was noted of this file; None: it is another's.

        What was torn behind them by a power cut is cut off: it would shift those that follow.
        """
        noted = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if noted[:_IDENTITY_BYTES] != identity:
            return None
        whole = (len(noted) - _IDENTITY_BYTES) // _RECORD.size * _RECORD.size
        os.ftruncate(self._file, _IDENTITY_BYTES + whole)
        records = memoryview(noted)[_IDENTITY_BYTES : _IDENTITY_BYTES + whole]
        return list(_RECORD.iter_unpack(records))

    def empty(self) -> None:
        """Forget everything, whose it is first."""
        os.ftruncate(self._file, 0)

    def begin(self, identity: bytes) -> None:
        """Say whose it is, once it is empty."""
        self._append(identity)

    def note(self, arrived: Iterable[tuple[int, bytes]]) -> None:
        """Append (position, digest) of chunks that are on the disk, durably."""
        self._append(b"".join(_RECORD.pack(*one) for one in arrived))
        os.fdatasync(self._file)

    def _append(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._file, view) :]
