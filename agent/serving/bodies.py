"""Collects the body of one request: straight into its place, or chunk by chunk.

Both stand between the socket and the connection while a body comes, and count what they hold.
"""

import asyncio
from typing import Protocol

import numpy as np

from agent.serving.chunked import BadChunk, Chunks
from agent.serving.door import Door, Turned
from agent.serving.heads import Head

_ALIGNMENT = 16


def _before(head: Head) -> int:
    """Bytes to leave free, so that the tensors after the JSON begin where their loads want them."""
    return -(head.json_bytes or 0) % _ALIGNMENT


class Owner(Protocol):
    """Who waits for the body."""

    def collected(self, body: memoryview, rest: bytes) -> None:
        """The body is complete; `rest` came behind it."""

    def turn_away(self, turned: Turned) -> None:
        """The body cannot be accepted."""

    def eof_received(self) -> bool:
        """The client sends no more."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""

    def pause_writing(self) -> None:
        """The client does not fetch what we send."""

    def resume_writing(self) -> None:
        """It does again."""


class Collecting:
    """A body that is not complete: what both kinds have in common."""

    def __init__(self, head: Head, door: Door, owner: Owner) -> None:
        self._head, self._door, self._owner = head, door, owner
        self.held_bytes = 0
        self._seen_bytes = 0

    def stalls(self) -> bool:
        """Whether too little came since this was asked last."""
        came, self._seen_bytes = self.held_bytes - self._seen_bytes, self.held_bytes
        return came < self._door.bounds.least_bytes

    def _hold(self, count: int) -> bool:
        """Count what came; False where it was too much, and the request has been turned away."""
        self.held_bytes += count
        turned = self._door.hold(count)
        if turned is not None:
            self._owner.turn_away(turned)
        return turned is None

    def eof_received(self) -> bool:
        """The body will never be complete."""
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell the connection."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        self._owner.resume_writing()


class PlainBody(Collecting, asyncio.BufferedProtocol):
    """A body of known length, which the socket is read into without a copy."""

    def __init__(self, head: Head, door: Door, owner: Owner) -> None:
        super().__init__(head, door, owner)
        before = _before(head)
        # Not zeroed: memory that is not sent is not touched.
        self._body = np.empty(before + head.length, np.uint8).data[before:]
        self._filled = 0

    def begin(self, begun: bytes) -> None:
        """Take what came together with the head."""
        self._body[: len(begun)] = begun
        self.buffer_updated(len(begun))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: no further than the body's end."""
        del sizehint
        return self._body[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        self._filled += nbytes
        if self._hold(nbytes) and self._filled == len(self._body):
            self._owner.collected(self._body, b"")


class ChunkedBody(Collecting, asyncio.Protocol):
    """A body whose length nobody knows before its end."""

    def __init__(self, head: Head, door: Door, owner: Owner) -> None:
        super().__init__(head, door, owner)
        self._before = _before(head)
        self._chunks = Chunks(before=self._before)
        self._most = door.most_bytes(head)

    def begin(self, begun: bytes) -> None:
        """Take what came together with the head."""
        self.data_received(begun)

    def data_received(self, data: bytes) -> None:
        """Chunks have come, or parts of them."""
        chunks, before = self._chunks, len(self._chunks.body)
        try:
            chunks.feed(data)
        except BadChunk as error:
            self._owner.turn_away(Turned(400, str(error)))
            return
        size = len(chunks.body) - self._before
        if not self._hold(len(chunks.body) - before):
            return
        if size > self._most:
            text = f"cannot accept a body of {size} bytes or more: at most {self._most}"
            self._owner.turn_away(Turned(413, text))
        elif chunks.rest is not None:
            self._owner.collected(memoryview(chunks.body)[self._before :], chunks.rest)
