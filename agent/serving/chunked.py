"""Takes a chunked body apart, piece by piece as it comes (RFC 9112, section 7.1)."""

import re

_LENGTH = re.compile(rb"([0-9A-Fa-f]{1,12})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\Z")
_MOST_LINE_BYTES = 1024
_MOST_TRAILER_BYTES = 8 * 1024


class BadChunk(Exception):
    """What came is no chunk."""


class Chunks:
    """Collects one chunked body in `body`, behind `before` bytes that the caller fills or skips."""

    def __init__(self, *, before: int = 0) -> None:
        self.body = bytearray(before)
        self.rest: bytes | None = None
        """What came behind the body, once it is complete."""
        self._left = 0
        self._trailer_bytes = 0
        self._data = b""
        self._at = 0
        self._step = self._length

    def feed(self, data: bytes) -> None:
        """Take what has come.

        Raises:
            BadChunk: it is not of the form that a body has here.
        """
        self._data = self._data[self._at :] + data
        self._at = 0
        while self._step():
            pass

    def _length(self) -> bool:
        line = self._line()
        if line is None:
            return False
        found = _LENGTH.match(line)
        if found is None:
            raise BadChunk(f"cannot read a chunk of length {line[:20].decode('latin-1')!r}")
        self._left = int(found[1], 16)
        self._step = self._content if self._left else self._trailer
        return True

    def _content(self) -> bool:
        taken = self._data[self._at : self._at + self._left]
        self.body += taken
        self._at += len(taken)
        self._left -= len(taken)
        if self._left:
            return False
        self._step = self._end
        return True

    def _end(self) -> bool:
        end = self._data[self._at : self._at + 2]
        if not b"\r\n".startswith(end):
            raise BadChunk("cannot read a chunk that is longer than it says")
        if len(end) < 2:
            return False
        self._at += 2
        self._step = self._length
        return True

    def _trailer(self) -> bool:
        """Read over the trailer; nobody here wants it."""
        line = self._line()
        if line is None:
            return False
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > _MOST_TRAILER_BYTES:
            raise BadChunk(f"cannot read a trailer of more than {_MOST_TRAILER_BYTES} bytes")
        if line:
            return True
        self.rest = self._data[self._at :]
        return False

    def _line(self) -> bytes | None:
        end = self._data.find(b"\r\n", self._at, self._at + _MOST_LINE_BYTES + 2)
        if end < 0:
            if len(self._data) - self._at > _MOST_LINE_BYTES + 1:
                raise BadChunk(f"cannot read a line of more than {_MOST_LINE_BYTES} bytes")
            return None
        line = self._data[self._at : end]
        self._at = end + 2
        return line
