"""The receiving half of a connection: requests come, are checked and answered in their order.

It trusts nothing that it is sent: heads and bodies are bounded before they are kept, whoever sends
too slowly is hung up on, and for whoever has gone nothing is run.
"""

import asyncio
import math

from agent.serving import heads, presence
from agent.serving.answering import Answering
from agent.serving.bodies import ChunkedBody, PlainBody
from agent.serving.door import Door, Turned
from agent.serving.heads import Head, Unreadable

HEAD_BYTES = 64 * 1024
_END = len(heads.END)
_AHEAD_BYTES = 64 * 1024
"""Of further requests, while one is being answered; then the client has to wait."""
_IN_A_ROW = 16
"""Requests of one connection that are answered before others have their turn."""
_SMALL_BYTES = 16 * 1024
"""A body of up to this waits with its head until it is whole; a longer one has its own memory."""
_EMPTY = (b"\r", b"\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(Answering):
    """A client's connection, from its first moment to its end."""

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._body: PlainBody | ChunkedBody | None = None
        self._resting = False
        """Others have their turn."""
        self._in_head = False
        """Part of a head has come, and the rest has its time."""

    def data_received(self, data: bytes) -> None:
        """Requests have come, or parts of them."""
        if self._data or self._head is not None or self._choked or self._resting or self._closing:
            self._more(data)
        elif not self._by_rote(data):
            self._data = data
            if self._read(data):
                self._go()

    def _more(self, data: bytes) -> None:
        """What came behind something that is not done."""
        if self._closing:
            return
        self._data += data
        if self._head is None and not self._choked and not self._resting:
            self._go()
        elif len(self._data) > _AHEAD_BYTES:
            self._held_back = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; whether it may still get answers."""
        self._ended = True
        if self._closing or self._body is not None:
            return False
        if self._task is not None and presence.has_gone(self._transport.get_extra_info("socket")):
            self._task.cancel()
            return False
        return self._task is not None or self._choked or self._resting

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more: what has not begun never will."""
        self._drop_body()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client fetches again."""
        super().resume_writing()
        if self._task is not None:
            self.deadline = math.inf
        elif self._head is None and not self._resting:
            self._go()

    @property
    def idle(self) -> bool:
        """Whether it is between two requests."""
        return super().idle and not self._data and self._head is None

    def expire(self) -> None:
        """Hang up, unless what we wait for goes on."""
        if self._choked or self._closing or self.idle:
            super().expire()
        elif self._body is not None and not self._body.stalls():
            self._wait(self._door.bounds.stall_s)
        else:
            self.turn_away(Turned(408, "cannot wait longer for the rest of the request"))

    def _go(self) -> None:
        """Take up what has come, as far as it is complete."""
        for _ in range(_IN_A_ROW):
            if not self._next():
                return
        self._resting = True
        self._door.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if self._head is None and not self._choked and not self._closing:
            self._go()

    def _next(self) -> bool:
        """Take up the next request; whether the one after it may be taken up at once."""
        data = self._data
        if self._by_rote(data):
            self._data, self._in_head = b"", False
            return self._ended and self._head is None
        return self._read(data)

    def _read(self, data: bytes) -> bool:
        """As `_next`, of what is not answered by rote."""
        if data.startswith(_EMPTY):  # RFC 9112, section 2.2: empty lines before are ignored
            data = self._data = data.lstrip(b"\r\n")
        end = data.find(heads.END, 0, HEAD_BYTES) + _END
        if end < _END:
            return self._incomplete(data)
        try:
            head = heads.read(data[:end])
        except Unreadable as error:
            self.turn_away(Turned(error.status, str(error)))
            return False
        turned = self._door.objection(head)
        until = end + head.length
        if turned is not None:
            self._head = head
            self.turn_away(turned)
        elif until > len(data) and head.length <= _SMALL_BYTES and not head.waits:
            return self._incomplete(data)
        elif head.chunked or until > len(data):
            self._collect(head, data[end:])
        else:
            self._data, self._in_head = data[until:], False
            self._begin(head, memoryview(data)[end:until], data[:until])
            if self._data or self._ended:
                return self._head is None and not self._choked and not self._closing
        return False

    def _incomplete(self, data: bytes) -> bool:
        if len(data) >= HEAD_BYTES:
            text = f"cannot read a head of {HEAD_BYTES} bytes or more"
            self.turn_away(Turned(431, text))
        elif self._ended:
            self._transport.close()
        elif data and not self._in_head:
            self._in_head = True
            self._wait(self._door.bounds.head_s)
        return False

    def _collect(self, head: Head, begun: bytes) -> None:
        """Let the body have what comes, until it is complete."""
        if self._ended:
            self._transport.close()
            return
        if head.waits and not begun:
            self._transport.write(_CONTINUE)
        self._head, self._data = head, b""
        self._wait(self._door.bounds.stall_s)
        kind = ChunkedBody if head.chunked else PlainBody
        self._in_head = False
        self._body = kind(head, self._door, self)
        self._listen(self._body)
        self._body.begin(begun)

    def collected(self, body: memoryview, rest: bytes) -> None:
        """The body is complete; `rest` came behind it."""
        head = self._head
        assert head is not None
        self._drop_body()
        self._data = rest
        self._begin(head, body)
        if rest and self._head is None and not self._choked and not self._closing:
            self._go()

    def turn_away(self, turned: Turned) -> None:
        """Refuse the request that is being read, and all that may follow it."""
        head = self._head
        self._drop_body()
        self._release()
        self._data = b""
        self._say_last(turned, head)

    def _drop_body(self) -> None:
        if self._body is not None:
            self._held_bytes += self._body.held_bytes
            self._body = None
            self._listen(self)

    def _listen(self, protocol: asyncio.BaseProtocol) -> None:
        """Let `protocol` have what comes; uvloop reads as before until reading begins anew."""
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._transport.set_protocol(protocol)
            self._transport.resume_reading()
