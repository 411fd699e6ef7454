"""Writes the head of an HTTP/1.1 answer (pure)."""

from http import HTTPStatus

from agent.serving.api import Answer
from agent.serving.heads import Head

_SMALL_BYTES = 64 * 1024
"""Up to this, parts are joined: one buffer is quicker to send than several."""
_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_starts: dict[tuple[int, bytes], bytes] = {}
"""By status and type of content, which are few."""


def write(answer: Answer, head: Head | None, *, keep: bool) -> bytes | list[bytes | memoryview]:
    """What goes out, in one buffer or in several; `head` is the request's, where it has one."""
    begun = start(answer.status, answer.content_type)
    parts = answer.parts
    size = sum(map(len, parts))
    more = b"".join(b"%b: %b\r\n" % each for each in answer.headers) if answer.headers else b""
    if not keep:
        more += b"connection: close\r\n"
    elif head is not None and head.old:
        more += b"connection: keep-alive\r\n"
    text = b"%b%d\r\n%b\r\n" % (begun, size, more)
    if head is not None and head.method == "HEAD":
        return text
    if size <= _SMALL_BYTES:
        return b"".join((text, *parts))
    return [text, *parts]


def start(status: int, content_type: bytes) -> bytes:
    """The head of an answer as far as it says how long it is."""
    known = _starts.get((status, content_type))
    if known is not None:
        return known
    begun = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: " % (
        status, _REASONS.get(status, b""), content_type,
    )  # fmt: skip
    return _starts.setdefault((status, content_type), begun)
