"""The one door to a variant's file: plain ONNX as it lies, a packed one expanded in memory.

Whoever loads a model opens its path here, so that nobody else knows that there are two forms.
"""

import contextlib
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from compression.errors import BadModel
from compression.packed import layout
from compression.packed.layout import PLAIN, PLANES, SPARSE

SUFFIX = ".packed"
Read = Callable[[int], bytes]
"""Gives the bytes of the stream that comes next, which must be so many."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """Give the path under which a model can be read as ONNX while this is open.

    A packed file is expanded into memory that has a path of its own, so that nothing is written
    and nothing stays behind: beside what a plain file needs to load it takes the expanded size,
    until this is closed.

    Raises:
        BadModel: a packed file is truncated, corrupt, or would grow beyond reason.
    """
    if not is_packed(path):
        yield path  # what is missing or unreadable is told by whoever reads it
        return
    descriptor = os.memfd_create("model")
    try:
        # Mapped as long as it takes memory, so that it counts as this process's own.
        mapped = _expanded(descriptor, path)
        yield Path(f"/proc/self/fd/{descriptor}")
        del mapped
    finally:
        os.close(descriptor)


def is_packed(path: Path) -> bool:
    """Whether a file is a packed model; not where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(layout.MAGIC)) == layout.MAGIC
    except OSError:
        return False


def expanded_bytes(path: Path) -> int:
    """How large a model is as ONNX: what a packed file says, else its own size.

    Raises:
        OSError: there is no such file.
        BadModel: a packed file is truncated, or would grow beyond reason.
    """
    if not is_packed(path):
        return path.stat().st_size
    with path.open("rb") as file:
        return _head(file, path.name)[0]


def expand(path: Path) -> bytes:
    """Return the bytes of the ONNX file that a model's file stands for.

    Raises:
        OSError: there is no such file.
        BadModel: as `opened`.
    """
    with opened(path) as plain:
        return plain.read_bytes()


def _expanded(descriptor: int, path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        size, checksum = _head(file, path.name)
        os.ftruncate(descriptor, size)
        # Not closed by hand: what an error's traceback still looks into cannot be.
        whole = mmap.mmap(descriptor, size)
        _parts(file, whole, path.name)
        if zlib.crc32(whole) != checksum:
            raise _corrupt(path.name, f"its {size} bytes have another checksum")
        return whole


def _head(file: IO[bytes], name: str) -> tuple[int, int]:
    stored = os.fstat(file.fileno()).st_size
    file.seek(len(layout.MAGIC))
    head = file.read(layout.HEAD.size)
    if len(head) < layout.HEAD.size:
        raise _corrupt(name, "it ends inside of its head")
    size, checksum = layout.HEAD.unpack(head)
    layout.bounded(name, size, stored)
    if not size:
        raise _corrupt(name, "it says that it is empty")
    return size, checksum


def _parts(file: IO[bytes], whole: mmap.mmap, name: str) -> None:
    """Fill `whole` part by part."""
    at = 0
    while at < len(whole):
        head = file.read(layout.PART.size)
        if len(head) < layout.PART.size:
            raise _corrupt(name, f"it ends with {at} of {len(whole)} bytes expanded")
        kind, width, fill, length = layout.PART.unpack(head)
        fits = 0 < length <= len(whole) - at
        if width not in layout.WIDTHS or kind not in _FORMS or not fits or length % width:
            raise _corrupt(name, f"a part of kind {kind}, width {width} and {length} bytes")
        part = np.frombuffer(whole, np.uint8, length, at)
        _FORMS[kind](part, width, fill, lambda expected: _stream(file, expected, name))
        at += length
    if file.read(1):
        raise _corrupt(name, "something follows its last part")


def _plain(part: NDArray[np.uint8], width: int, fill: bytes, read: Read) -> None:
    del width, fill
    part[:] = np.frombuffer(read(len(part)), np.uint8)


def _planes(part: NDArray[np.uint8], width: int, fill: bytes, read: Read) -> None:
    del fill
    _interleave(part.reshape(-1, width), read)


def _interleave(elements: NDArray[np.uint8], read: Read) -> None:
    count, width = elements.shape
    for at in range(width):
        elements[:, at] = np.frombuffer(read(count), np.uint8)


def _sparse(part: NDArray[np.uint8], width: int, fill: bytes, read: Read) -> None:
    """Spread the values over the elements that are not `fill`, block by block."""
    elements = part.view(f"<u{width}")
    bits = np.frombuffer(read(-(-len(elements) // 8)), np.uint8)
    starts = range(0, len(elements), layout.BLOCK)
    counts = [int(_chosen(bits, start, len(elements)).sum()) for start in starts]
    values = np.empty((sum(counts), width), np.uint8)
    _interleave(values, read)
    given: NDArray[Any] = values.reshape(-1).view(elements.dtype)
    elements[:] = np.frombuffer(fill[:width], elements.dtype)[0]
    used = 0
    for start, count in zip(starts, counts, strict=True):
        block = elements[start : start + layout.BLOCK]
        block[_chosen(bits, start, len(elements))] = given[used : used + count]
        used += count


def _chosen(bits: NDArray[np.uint8], start: int, total: int) -> NDArray[np.bool_]:
    """Which elements of one block are not the fill."""
    count = min(layout.BLOCK, total - start)
    own = bits[start // 8 : (start + count + 7) // 8]
    return np.unpackbits(own, count=count, bitorder="little").astype(bool)


_FORMS: dict[int, Callable[[NDArray[np.uint8], int, bytes, Read], None]] = {
    PLAIN: _plain,
    PLANES: _planes,
    SPARSE: _sparse,
}


def _stream(file: IO[bytes], expected: int, name: str) -> bytes:
    """Read one stream of exactly `expected` bytes, whatever it claims to be."""
    head = file.read(layout.STREAM.size)
    stored = layout.STREAM.unpack(head)[0] if len(head) == layout.STREAM.size else -1
    if not 0 <= stored <= expected:  # coded it would be longer than the bytes themselves
        raise _corrupt(name, f"a stream of {stored} bytes where at most {expected} are in place")
    raw = file.read(stored)
    if len(raw) < stored:
        raise _corrupt(name, f"a stream ends after {len(raw)} of {stored} bytes")
    if stored == expected:
        return raw
    decompressor = zstandard.ZstdDecompressor(max_window_size=layout.WINDOW_BYTES)
    try:
        # Not `decompress`, which would make room for whatever the frame claims.
        with decompressor.stream_reader(raw) as reader:
            found = reader.read(expected)
            more = reader.read(1)
    except zstandard.ZstdError as error:
        raise _corrupt(name, str(error)) from error
    if len(found) != expected or more:
        raise _corrupt(name, f"a stream does not expand to {expected} bytes")
    return found


def _corrupt(name: str, what: str) -> BadModel:
    return BadModel(f"cannot expand {name}: not what was packed, or truncated ({what})")
