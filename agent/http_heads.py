"""The heads of HTTP requests, bounded: uvicorn waits for ever and keeps whatever is sent."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
HEAD_S = 30.0
"""How long a connection may take to send a whole head, from its first moment."""


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which hangs up on a head that is too large or too slow."""

    _in_head = True
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Give the first head its time."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_S, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the timer, and of us with it."""
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is not complete."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self.send_400_response(f"cannot read a head of more than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Give each further head its time too."""
        super().on_message_begin()
        self._in_head = True
        if self._patience is None:
            self._patience = self.loop.call_later(HEAD_S, self._hang_up)

    def on_headers_complete(self) -> None:
        """The rest is the body, which the application bounds."""
        self._in_head, self._head_bytes = False, 0
        self._calm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes now is another head."""
        self._in_head = True
        super().on_message_complete()

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()
