"""A file on its way to the broker: cut, encoded and named; the reading is all the I/O here."""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from agent.errors import BadInput
from agent.protocol import chunking
from agent.protocol.chunking import Encoding
from agent.protocol.manifest import FileRef

_SAMPLE_CHUNKS = 8
_WORTH_IT = 0.97
"""zstd is chosen where it sends at most this share of the plain bytes."""


class Packing:
    """Iterate it once for (name, bytes as sent): chunks, then index blobs; then take `ref`.

    A blob that occurs twice in the file comes once. Memory does not grow with the file, except
    for 32 bytes per chunk.
    """

    def __init__(self, path: Path, *, encoding: Encoding, chunk_bytes: int | None = None) -> None:
        """Look at the file.

        Raises:
            BadInput: it is absent, empty or over 2 GiB.
        """
        self.path = path
        self.size_bytes = _size(path)
        self.ref: FileRef | None = None
        self._encoding = encoding
        self._chunk_bytes = chunk_bytes or chunking.PLAIN_BYTES[encoding]

    @property
    def chunk_count(self) -> int:
        """How many chunks the file has (index blobs not counted)."""
        return chunking.chunk_count(self.size_bytes, self._chunk_bytes)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        whole, names, seen = hashlib.sha256(), [], set()
        for plain in _slices(self.path, self._chunk_bytes):
            whole.update(plain)
            sent = chunking.encode(plain, self._encoding)
            name = chunking.sha256(sent)
            names.append(name)
            if name not in seen:
                seen.add(name)
                yield name, sent
        blobs, depth = chunking.index_blobs(names)
        self.ref = FileRef(
            size_bytes=self.size_bytes,
            sha256=whole.hexdigest(),
            encoding=self._encoding,
            chunk_bytes=self._chunk_bytes,
            index=chunking.sha256(blobs[-1]),
            index_depth=depth,
        )
        for blob in blobs:
            yield chunking.sha256(blob), blob


def choose_encoding(path: Path) -> Encoding:
    """zstd where it makes the first chunks smaller, else raw.

    Raises:
        BadInput: the file cannot be read.
    """
    _size(path)
    first = list(itertools.islice(_slices(path, chunking.PLAIN_BYTES["zstd"]), _SAMPLE_CHUNKS))
    plain = sum(map(len, first))
    sent = sum(len(chunking.encode(each, "zstd")) for each in first)
    return "zstd" if sent <= _WORTH_IT * plain else "raw"


def _slices(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(chunk_bytes):
                yield block
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    if not 0 < size <= chunking.MAX_FILE_BYTES:
        raise BadInput(f"cannot publish {path}: {size} bytes, not 1 to {chunking.MAX_FILE_BYTES}")
    return size
