"""Packs an ONNX file: each constant in whichever form takes the fewest bytes."""

import itertools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from compression.packed import layout, spans
from compression.packed.layout import PLAIN, PLANES, SPARSE, Width

LEVEL, SMALL_LEVEL = 15, 19
"""The second takes three times as long for one byte in a hundred."""
SMALL = 2**20
"""Bytes of a file that is packed in three ways, to keep the smallest: its time is nothing."""
_LEAST_BYTES = 512
"""Smaller constants stay between their neighbours: a part of its own costs some 40 bytes."""
_LEAST_FILL = 1 / 8
"""Of the elements, so that a bit for each may pay."""


def pack(plain: bytes) -> bytes:
    """Return an ONNX file in the packed form; `reading.expand` gives exactly `plain` back.

    Raises:
        BadModel: it could not be told from a file that is meant to exhaust the memory.
    """
    small = len(plain) <= SMALL
    level = SMALL_LEVEL if small else LEVEL
    parts = b"".join(_parts(plain, level))
    if small:  # of many small constants few may be worth a part of their own, or none
        few = b"".join(_parts(plain, level, sparing=True))
        parts = min(parts, few, _together(plain, level), key=len)
    packed = layout.MAGIC + layout.HEAD.pack(len(plain), zlib.crc32(plain)) + parts
    layout.bounded("what was packed", len(plain), len(packed))
    return packed


def _parts(plain: bytes, level: int, *, sparing: bool = False) -> Iterator[bytes]:
    """Each constant, and what lies between them; `sparing`: only those that another form helps."""
    at = 0
    for span in spans.find(plain, least_bytes=_LEAST_BYTES):
        raw = plain[span.start : span.end]
        own = _constant(raw, span.width, level)
        if sparing and own[0] == PLAIN:
            continue
        if span.start > at:
            yield _plain(plain[at : span.start], level)
        yield own
        at = span.end
    if at < len(plain):
        yield _plain(plain[at:], level)


def _together(plain: bytes, level: int) -> bytes:
    """All constants as one part, since they are alike, and what is before and behind them."""
    found = list(spans.find(plain, least_bytes=_LEAST_BYTES))
    at = (0, found[0].start, found[-1].end, len(plain)) if found else (0, len(plain))
    return b"".join(_plain(plain[a:b], level) for a, b in itertools.pairwise(at) if a < b)


def _constant(raw: bytes, width: Width, level: int) -> bytes:
    """The smallest of the forms that one constant can have."""
    forms = [_plain(raw, level), *_sparse(raw, width, level)]
    if width > 1:
        planes = _planes(_elements(raw, width))
        forms.append(_part((PLANES, width, bytes(8), len(raw)), planes, level))
    return min(forms, key=len)


def _plain(raw: bytes, level: int) -> bytes:
    return _part((PLAIN, 1, bytes(8), len(raw)), [raw], level)


def _sparse(raw: bytes, width: Width, level: int) -> Iterator[bytes]:
    elements = np.frombuffer(raw, f"<u{width}")
    values, counts = np.unique(elements[: layout.BLOCK], return_counts=True)
    fill = values[counts.argmax()]
    other = elements != fill
    if other.mean() > 1 - _LEAST_FILL:
        return
    bits = np.packbits(other, bitorder="little").tobytes()
    left = np.ascontiguousarray(elements[other]).view(np.uint8).reshape(-1, width)
    streams = [bits, *_planes(left)]
    head = (SPARSE, width, fill.tobytes().ljust(8, b"\0"), len(raw))
    yield _part(head, streams, level)


def _elements(raw: bytes, width: Width) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8).reshape(-1, width)


def _planes(elements: NDArray[Any]) -> list[bytes]:
    return [elements[:, at].tobytes() for at in range(elements.shape[1])]


def _part(head: tuple[int, Width, bytes, int], streams: list[bytes], level: int) -> bytes:
    """A part of one kind, width, fill and length, with its streams."""
    return b"".join([layout.PART.pack(*head), *(_stream(one, level) for one in streams)])


def _stream(raw: bytes, level: int) -> bytes:
    window_log = layout.WINDOW_BYTES.bit_length() - 1
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(raw), window_log=window_log, write_checksum=False
    )
    coded = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    stored = coded if len(coded) < len(raw) else raw
    return layout.STREAM.pack(len(stored)) + stored
