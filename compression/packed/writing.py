"""Packs an ONNX file: each constant in whichever form takes the fewest bytes."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from compression.packed import layout, spans
from compression.packed.layout import PLAIN, PLANES, SPARSE, Width

LEVEL = 15
"""Level 19 takes three times as long for one byte in a hundred."""
_LEAST_BYTES = 512
"""Smaller constants stay between their neighbours: a part of its own costs some 40 bytes."""
_LEAST_FILL = 1 / 8
"""Of the elements, so that a bit for each may pay."""


def pack(plain: bytes) -> bytes:
    """Return an ONNX file in the packed form; `reading.expand` gives exactly `plain` back.

    Raises:
        BadModel: it could not be told from a file that is meant to exhaust the memory.
    """
    parts = [layout.MAGIC, layout.HEAD.pack(len(plain), zlib.crc32(plain))]
    at = 0
    for span in spans.find(plain, least_bytes=_LEAST_BYTES):
        if span.start > at:
            parts.append(_plain(plain[at : span.start]))
        parts.append(_constant(plain[span.start : span.end], span.width))
        at = span.end
    if at < len(plain):
        parts.append(_plain(plain[at:]))
    packed = b"".join(parts)
    layout.bounded("what was packed", len(plain), len(packed))
    return packed


def _constant(raw: bytes, width: Width) -> bytes:
    """The smallest of the forms that one constant can have."""
    forms = [_plain(raw), *_sparse(raw, width)]
    if width > 1:
        forms.append(_part(PLANES, width, bytes(8), len(raw), _planes(_elements(raw, width))))
    return min(forms, key=len)


def _plain(raw: bytes) -> bytes:
    return _part(PLAIN, 1, bytes(8), len(raw), [raw])


def _sparse(raw: bytes, width: Width) -> Iterator[bytes]:
    elements = np.frombuffer(raw, f"<u{width}")
    values, counts = np.unique(elements[: layout.BLOCK], return_counts=True)
    fill = values[counts.argmax()]
    other = elements != fill
    if other.mean() > 1 - _LEAST_FILL:
        return
    bits = np.packbits(other, bitorder="little").tobytes()
    left = np.ascontiguousarray(elements[other]).view(np.uint8).reshape(-1, width)
    yield _part(SPARSE, width, fill.tobytes().ljust(8, b"\0"), len(raw), [bits, *_planes(left)])


def _elements(raw: bytes, width: Width) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8).reshape(-1, width)


def _planes(elements: NDArray[Any]) -> list[bytes]:
    return [elements[:, at].tobytes() for at in range(elements.shape[1])]


def _part(kind: int, width: Width, fill: bytes, length: int, streams: list[bytes]) -> bytes:
    head = layout.PART.pack(kind, width, fill, length)
    return b"".join([head, *(_stream(one) for one in streams)])


def _stream(raw: bytes) -> bytes:
    window_log = layout.WINDOW_BYTES.bit_length() - 1
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=len(raw), window_log=window_log, write_checksum=False
    )
    coded = zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    stored = coded if len(coded) < len(raw) else raw
    return layout.STREAM.pack(len(stored)) + stored
