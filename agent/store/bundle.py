"""Reads a bundle: a model version in one file, from a USB stick or from anywhere."""

import os
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.errors import BadInput, Corrupt, Unavailable
from agent.protocol import bundling, chunking

_MOST_ENTRIES = 4 * (chunking.MAX_FILE_BYTES // chunking.CHUNK_BYTES)
"""As many chunks as a manifest can name, and more."""


class Bundle:
    """An open bundle. Use it in a `with` block; nothing of it is believed here."""

    def __init__(self, path: Path) -> None:
        """Open it and note where everything lies.

        Raises:
            BadInput: it cannot be opened.
            Corrupt: it is no bundle, or cut short.
            Unavailable: the medium fails.
        """
        self.path = path
        self._entries: dict[str, tuple[int, int]] = {}
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadInput(f"cannot open {path}: {error.strerror}") from error
        try:
            self._scan()
            self.sealed = self._read(bundling.MANIFEST)
        except Corrupt as error:
            self.close()
            raise Corrupt(f"cannot read {path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    async def get(self, names: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        """Yield (name, payload) of those of `names` that are here, as a broker would.

        Raises:
            Unavailable: the medium fails, or a blob is not here.
        """
        for name in names:
            entry = bundling.blob(name)
            if entry not in self._entries:
                raise Unavailable(f"cannot find chunk {name[:12]} in {self.path}: incomplete")
            yield name, self._read(entry)

    def _scan(self) -> None:
        at = 0
        while (found := bundling.read_header(self._pread(bundling.BLOCK_BYTES, at))) is not None:
            entry, size = found
            at += bundling.BLOCK_BYTES
            self._entries[entry] = (at, size)
            at += size + len(bundling.padding(size))
            if len(self._entries) > _MOST_ENTRIES:
                raise Corrupt(f"it has more than {_MOST_ENTRIES} entries")
        if bundling.MANIFEST not in self._entries:
            raise Corrupt("it has no manifest")

    def _read(self, entry: str) -> bytes:
        at, size = self._entries[entry]
        content = self._pread(size, at)
        if len(content) != size:
            raise Corrupt("it ends in the middle")
        return content

    def _pread(self, size: int, at: int) -> bytes:
        try:
            return os.pread(self._file, size, at)
        except OSError as error:
            raise Unavailable(f"cannot read {self.path}: {error.strerror}") from error
