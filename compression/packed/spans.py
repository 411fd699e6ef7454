"""Finds where constants lie in the bytes of an ONNX file, by protobuf's wire format (pure).

https://protobuf.dev/programming-guides/encoding and onnx.proto3: no copy of the model is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from compression.packed.layout import Width

_HOLDS = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
"""Message -> field -> the message that it holds; other fields are passed over."""
_DATA_TYPE, _FLOATS, _RAW = 2, 4, 9
_TYPE_WIDTHS: dict[int, Width] = {
    1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2,
    21: 1, 22: 1,
}  # fmt: skip
"""TensorProto.DataType -> bytes of one element; packed halves of bytes count as bytes."""
_VARINT, _EIGHT, _DELIMITED, _FOUR = 0, 1, 2, 5
_VARINT_BYTES = 10


@dataclass(frozen=True)
class Span:
    """Elements of one constant, as bytes `start` to `end` of the file."""

    start: int
    end: int
    width: Width


def find(data: bytes, *, least_bytes: int) -> list[Span]:
    """Return the spans of constants of at least so many bytes, in order; of no ONNX file none."""
    try:
        found = list(_walk(memoryview(data), "model", 0, len(data)))
    except (IndexError, ValueError):
        return []
    return sorted(
        (one for one in found if one.end - one.start >= least_bytes), key=lambda one: one.start
    )


def _walk(data: memoryview, message: str, start: int, end: int) -> Iterator[Span]:
    if message == "tensor":
        yield from _tensor(data, start, end)
        return
    for field, kind, at, until in _fields(data, start, end):
        inner = _HOLDS[message].get(field)
        if inner is not None and kind == _DELIMITED:
            yield from _walk(data, inner, at, until)


def _tensor(data: memoryview, start: int, end: int) -> Iterator[Span]:
    width: Width | None = None
    raw: tuple[int, int] | None = None
    for field, kind, at, until in _fields(data, start, end):
        if field == _DATA_TYPE and kind == _VARINT:
            width = _TYPE_WIDTHS.get(_varint(data, at)[0])
        elif field == _RAW and kind == _DELIMITED:
            raw = at, until
        elif field == _FLOATS and kind == _DELIMITED and not (until - at) % 4:
            yield Span(at, until, 4)
    if raw is not None and width is not None and not (raw[1] - raw[0]) % width:
        yield Span(*raw, width)


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, and where the value begins and ends."""
    at = start
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            until = _varint(data, at)[1]
        elif kind == _DELIMITED:
            size, at = _varint(data, at)
            until = at + size
        elif kind in {_EIGHT, _FOUR}:
            until = at + (8 if kind == _EIGHT else 4)
        else:
            raise ValueError(f"wire type {kind}")
        if not tag >> 3:
            raise ValueError("field 0, which no message has")
        if until > end:
            raise ValueError("a field beyond the end of its message")
        yield tag >> 3, kind, at, until
        at = until


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_VARINT_BYTES):
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("a number of more than ten bytes")
