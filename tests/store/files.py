"""Files cut into chunks in memory, and a transport that serves them, well or badly."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from agent.protocol import chunking
from agent.protocol.manifest import FileRef


def a_file(size: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


@dataclass
class Published:
    """A file as a publisher would cut it."""

    ref: FileRef
    blobs: dict[str, bytes]


def publish(
    data: bytes, *, chunk_bytes: int = 1024, encoding: chunking.Encoding = "raw"
) -> Published:
    slices = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    sent = [chunking.encode(each, encoding) for each in slices]
    index, depth = chunking.index_blobs([chunking.sha256(each) for each in sent])
    blobs = {chunking.sha256(each): each for each in [*sent, *index]}
    ref = FileRef(
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        encoding=encoding,
        chunk_bytes=chunk_bytes,
        index=chunking.sha256(index[-1]),
        index_depth=depth,
    )
    return Published(ref, blobs)


@dataclass
class Shelf:
    """A transport over a dictionary that counts what it was asked for."""

    blobs: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)

    async def get(self, names: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        self.windows.append(len(names))
        for name in names:
            self.asked.append(name)
            if name in self.blobs:
                yield name, self.blobs[name]
