"""The sending half of a connection, and its patience: deadlines, unfetched answers, ends."""

import asyncio
import math
from typing import Any

from agent.serving import answers
from agent.serving.api import Answer
from agent.serving.door import Door, Turned
from agent.serving.heads import Head

_LINGER_S = 2.0


class Line(asyncio.Protocol):
    """A connection as far as it does not matter what is asked on it."""

    def __init__(self, door: Door) -> None:
        self.deadline = math.inf
        self._door = door
        self._transport: Any = None
        self._now = door.loop.time
        self._closing = False
        """What was said is the last; what comes now is thrown away."""
        self._choked = False
        """The client does not fetch what was said."""
        self._unsent_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a head."""
        self._transport = transport
        if self._door.enter(self):
            self._wait(self._door.bounds.head_s)
            return
        most = self._door.bounds.connections
        self._say(
            Turned(503, f"cannot accept more than {most} connections", ((b"retry-after", b"1"),))
            .answer(), None, keep=False,
        )  # fmt: skip

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        del exc
        self._door.leave(self)
        self._closing = True
        self.deadline = math.inf

    def pause_writing(self) -> None:
        """More is said than the client fetches."""
        self._choked = True
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._wait(self._door.bounds.stall_s)

    def resume_writing(self) -> None:
        """It fetches again."""
        self._choked = False
        self._wait(self._door.bounds.idle_s)

    @property
    def idle(self) -> bool:
        """Whether it is between two requests."""
        return not (self._closing or self._choked)

    def finish(self) -> None:
        """End after what is being answered."""
        if self.idle:
            self._transport.close()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    def expire(self) -> None:
        """The deadline is over: hang up, unless the client is fetching."""
        unsent = self._transport.get_write_buffer_size()
        fetched, self._unsent_bytes = self._unsent_bytes - unsent, unsent
        if self._choked and fetched >= self._door.bounds.least_bytes:
            self._wait(self._door.bounds.stall_s)
        else:
            self._transport.abort()

    def _wait(self, seconds: float) -> None:
        self.deadline = deadline = self._now() + seconds
        if deadline < self._door.looks_at:
            self._door.expect(deadline)

    def _say(self, answer: Answer, head: Head | None, *, keep: bool) -> None:
        """Send an answer; without `keep` it is the last."""
        if self._transport.is_closing():
            return
        written = answers.write(answer, head, keep=keep)
        if isinstance(written, bytes):
            self._transport.write(written)
        else:
            self._transport.writelines(written)
        if not keep:
            self._closing = True
            self._transport.close()

    def _say_last(self, turned: Turned, head: Head | None) -> None:
        """Send an answer before everything has been read, and hang up a little later.

        Closing a socket that holds unread bytes resets it, and the client might never see the
        answer: so what still comes is thrown away for a moment (RFC 9112, section 9.6).
        """
        if self._transport.is_closing():
            return
        written = answers.write(turned.answer(), head, keep=False)
        self._transport.write(written)
        self._closing = True
        self._transport.write_eof()
        self._wait(_LINGER_S)
