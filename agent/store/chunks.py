"""Chunks on disk, named by the hash of their bytes: put, get, what is missing, collect."""

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from agent.errors import Corrupt, Unavailable
from agent.protocol import chunking

_PARTIAL = "partial"
_NAME = re.compile(r"^[0-9a-f]{64}\Z")


class Chunks:
    """A folder of chunks: `ab/abcd...`; what is being written lies in `partial/`.

    Writing is in windows: `put` some, then `settle`, which makes them durable and visible.
    A name that is lost in a power cut costs another pull, so folders are not synced.
    """

    def __init__(self, folder: Path) -> None:
        """Open or make the folder; what a kill left half-written is removed.

        Raises:
            Unavailable: it cannot be written.
        """
        self._folder = folder
        self._unsettled: dict[str, Path] = {}
        self._counter = itertools.count()
        with _disk(f"open the chunk store {folder}"):
            (folder / _PARTIAL).mkdir(parents=True, exist_ok=True)
            for left in (folder / _PARTIAL).iterdir():
                left.unlink()

    def put(self, name: str, payload: bytes) -> None:
        """Write one chunk beside the store, once its bytes have been checked against its name.

        Raises:
            Corrupt: the hash of the bytes is another; nothing was written.
            Unavailable: the disk is full or failing.
        """
        found = chunking.sha256(payload)
        if found != name:
            raise Corrupt(
                f"cannot accept chunk {name[:12]}: its {len(payload)} bytes hash to {found[:12]}"
            )
        # Two pulls may bring the same chunk at the same time: each has a file of its own.
        path = self._folder / _PARTIAL / f"{name}.{next(self._counter)}"
        with _disk(f"write chunk {name[:12]}"):
            path.write_bytes(payload)
        self._unsettled[name] = path

    def settle(self) -> None:
        """Flush what was put to the disk and give it its names.

        Raises:
            Unavailable: the disk is full or failing.
        """
        # Another pull may put its own meanwhile: this runs in a thread.
        pending, self._unsettled = self._unsettled, {}
        with _disk(f"settle {len(pending)} chunks"):
            for path in pending.values():
                handle = os.open(path, os.O_RDONLY)
                try:
                    os.fdatasync(handle)
                finally:
                    os.close(handle)
            for name, path in pending.items():
                final = self._path(name)
                final.parent.mkdir(exist_ok=True)
                path.replace(final)

    def has(self, name: str) -> bool:
        """Whether it is here (its bytes are checked when it is read)."""
        return self._path(name).exists()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which of `names` are not here: in order, each once."""
        return [name for name in dict.fromkeys(names) if not self.has(name)]

    def get(self, name: str) -> bytes | None:
        """Read one chunk; None where it is absent or the disk has damaged it (it is removed).

        Raises:
            Unavailable: the disk is failing.
        """
        path = self._path(name)
        with _disk(f"read chunk {name[:12]}"):
            try:
                payload = path.read_bytes()
            except FileNotFoundError:
                return None
            if chunking.sha256(payload) == name:
                return payload
            path.unlink()
            return None

    def collect(self, wanted: Collection[str] = ()) -> int:
        """Remove every chunk that is not wanted; return the bytes that were freed."""
        freed = 0
        for path in self._all():
            if path.name not in wanted:
                with contextlib.suppress(FileNotFoundError):
                    freed += path.stat().st_size
                    path.unlink()
        return freed

    def size_bytes(self) -> int:
        """Bytes of all chunks."""
        return sum(path.stat().st_size for path in self._all())

    def _all(self) -> Iterator[Path]:
        return (path for path in self._folder.glob("??/*") if path.is_file())

    def _path(self, name: str) -> Path:
        if not _NAME.match(name):
            raise Corrupt(f"cannot name a chunk {name[:80]!r}: not a sha256 in hex")
        return self._folder / name[:2] / name


@contextlib.contextmanager
def _disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        raise Unavailable(f"cannot {what}: {full}") from error
