"""How a packed model lies on disk; expanded it is an ONNX file again, to the last bit (pure).

    MAGIC, the length of the ONNX file, its CRC-32, then parts in its order until it is whole:
    kind, width, fill and length of the part, then its streams: a stored length, then the bytes.

A stream whose stored length is what it must be holds the bytes themselves, any other one a zstd
frame of them (RFC 8878). Numbers are little-endian.

| kind | what it is | streams |
| --- | --- | --- |
| PLAIN | any bytes | these bytes |
| PLANES | elements of `width` bytes | the first byte of each, the second of each, ... |
| SPARSE | elements, many of them `fill` | a bit for each, lowest first: not `fill`; their planes |

Exponents and high bytes say nearly the same everywhere and lie together in planes; a bit for each
element and an entropy coder come close to what positions must cost (docs/adr/0008).
"""

import struct
from typing import Literal

from compression.errors import BadModel

MAGIC = b"trimtab\x01"
"""No ONNX file begins so: as protobuf it would end a group that never began."""
HEAD = struct.Struct("<QI")
PART = struct.Struct("<BB8sQ")
STREAM = struct.Struct("<Q")

PLAIN, PLANES, SPARSE = 0, 1, 2
Width = Literal[1, 2, 4, 8]
WIDTHS: tuple[Width, ...] = (1, 2, 4, 8)
BLOCK = 2**20
"""Elements that are spread at a time; a multiple of 8."""
WINDOW_BYTES = 2**23
"""The most that zstd looks back, which is what expanding holds beside the parts."""
MOST_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""
MOST_RATIO = 1000
SLACK_BYTES = 2**20


def bounded(name: str, expanded_bytes: int, stored_bytes: int) -> None:
    """Refuse a file that would grow beyond reason.

    Raises:
        BadModel: beyond 2 GiB, or beyond 1,000 times the file and 1 MiB.
    """
    most = min(MOST_BYTES, MOST_RATIO * stored_bytes + SLACK_BYTES)
    if expanded_bytes > most:
        raise BadModel(
            f"cannot expand {name}: {stored_bytes} bytes would become {expanded_bytes}, "
            f"and {most} are the most"
        )
