"""A file cut into chunks that any broker carries, named by their own hashes (no I/O).

A chunk is a fixed slice of the plain file, sent raw or as one zstd frame; at most 120 KiB as
sent. The index of a file is its chunk hashes, 32 raw bytes each, in order. An index of more
than one chunk is itself cut into chunks, whose hashes make the next index, up to a depth of 3.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal

import zstandard

from agent.errors import Corrupt

Encoding = Literal["raw", "zstd"]

CHUNK_BYTES = 120 * 1024
"""The most bytes in one message's payload."""
# A zstd frame of incompressible data is a little longer than the data (ZSTD_compressBound).
PLAIN_BYTES: dict[Encoding, int] = {"raw": CHUNK_BYTES, "zstd": CHUNK_BYTES - 1024}
_MAX_WINDOW_BYTES = 1024 * 1024
HASH_BYTES = 32
HASHES_PER_INDEX = CHUNK_BYTES // HASH_BYTES
MAX_FILE_BYTES = 2 * 1024**3
"""onnx stores at most 2 GiB in one protobuf file."""


def sha256(data: bytes) -> str:
    """The name of a chunk."""
    return hashlib.sha256(data).hexdigest()


def encode(plain: bytes, encoding: Encoding) -> bytes:
    """Encode one slice of a file as it is sent."""
    if encoding == "raw":
        return plain
    return zstandard.ZstdCompressor(level=10).compress(plain)


def decode(sent: bytes, encoding: Encoding, *, plain_bytes: int) -> bytes:
    """Decode one chunk to exactly `plain_bytes` bytes.

    Raises:
        Corrupt: it does not decode, or to another length (a bomb is stopped at the bound).
    """
    plain = sent
    if encoding == "zstd":
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        try:
            plain = decompressor.stream_reader(sent).read(plain_bytes + 1)
        except zstandard.ZstdError as error:
            raise Corrupt(f"cannot decode a chunk of {len(sent)} bytes: {error}") from error
    if len(plain) != plain_bytes:
        raise Corrupt(f"cannot use a chunk: {len(plain)} bytes after decoding, not {plain_bytes}")
    return plain


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    """How many chunks a file of `size_bytes` has."""
    return -(-size_bytes // chunk_bytes)


def chunk_length(position: int, *, size_bytes: int, chunk_bytes: int) -> int:
    """Plain length in bytes of the chunk at `position`."""
    return min(chunk_bytes, size_bytes - position * chunk_bytes)


def index_blobs(hashes: list[str]) -> tuple[list[bytes], int]:
    """Build the index of a file: all its blobs, the top one last, and its depth."""
    level = b"".join(bytes.fromhex(name) for name in hashes)
    blobs: list[bytes] = []
    depth = 1
    while len(level) > CHUNK_BYTES:
        parts = [level[at : at + CHUNK_BYTES] for at in range(0, len(level), CHUNK_BYTES)]
        blobs += parts
        level = b"".join(hashlib.sha256(part).digest() for part in parts)
        depth += 1
    return [*blobs, level], depth


def split_index(blob: bytes) -> Iterator[str]:
    """The hashes in one index blob.

    Raises:
        Corrupt: its length is no positive multiple of 32.
    """
    if not blob or len(blob) % HASH_BYTES:
        raise Corrupt(f"cannot read an index of {len(blob)} bytes: not a multiple of 32")
    for at in range(0, len(blob), HASH_BYTES):
        yield blob[at : at + HASH_BYTES].hex()


def index_lengths(count: int) -> list[int]:
    """Hashes that each index level holds for `count` chunks, from the lowest level up."""
    levels = [count]
    while levels[-1] > HASHES_PER_INDEX:
        levels.append(-(-levels[-1] // HASHES_PER_INDEX))
    return levels
