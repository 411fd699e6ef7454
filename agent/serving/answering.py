"""The answering half of a connection: one request at a time, now or when its model has run."""

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import suppress

from agent.serving import again
from agent.serving.again import Again
from agent.serving.api import Answer, Pending, Request
from agent.serving.door import Door
from agent.serving.heads import Head
from agent.serving.line import Line
from agent.serving.outlet import Outlet


class Answering(Line, ABC):
    """A connection as far as it does not matter how requests come."""

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._data = b""
        """What has come and was not taken up yet."""
        self._head: Head | None = None
        """Of the request whose body comes, or which is being answered."""
        self._task: Pending | None = None
        self._again: Again | None = None
        """What was asked last, where it can be answered by rote."""
        self._outlet: Outlet | None = None
        self._ended = False
        """The client sends no more."""
        self._held_bytes = 0
        self._held_back = False
        """The client sent too far ahead."""
        self._idle_s = door.bounds.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more: what has not begun never will."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()
        if self._outlet is not None:
            self._outlet.close()
        self._release()

    def _by_rote(self, data: bytes) -> bool:
        """Answer what is asked again, now or later; False: it has to be read.

        Behind a run that fills the caches each function called here takes a microsecond.
        """
        known = self._again
        if known is None or self._door.stopping or self._transport.is_closing():
            return False
        answer = known.answer(data)
        if answer is not None:
            self._transport.write(answer)
            if not self._choked:
                self._wait(self._idle_s)
            return True
        if not known.asks(data):
            return False
        self._task = known.later(data, self._way_out(), self._came)
        if self._task is None:
            return False
        self._await(known.head, len(data))
        return True

    def _way_out(self) -> Outlet | None:
        """The way past the loop; None while something else is on its way."""
        if self._transport.get_write_buffer_size():
            return None
        if self._outlet is None:
            with suppress(OSError):  # no descriptor is left: the loop will send it
                self._outlet = Outlet(self._transport.get_extra_info("socket").fileno())
        return self._outlet

    def _came(self, rest: bytes | None, data: bytes) -> None:
        """What was asked by rote has come, but for `rest`; or it has to be read."""
        self._task = None
        if self._closing:
            return
        self._done()
        if rest is None:
            self._again = None
            self._data = data + self._data
        else:
            if rest:
                self._transport.write(rest)
            if self._door.stopping:
                self._closing = True
                self._transport.close()
            elif not self._choked:
                self._wait(self._idle_s)
        if self._data or self._ended:
            self._go_on()

    def _begin(self, head: Head, body: memoryview, whole: bytes = b"") -> None:
        """Answer a request, now or when what it waits for is there.

        `whole` is all of it, where it may be answered by rote the next time.
        """
        answering = self._door.begin(
            Request(head.method, head.path, head.query, head.headers, body)
        )
        if isinstance(answering, Answer):
            self._answer(head, answering, whole)
            return
        self._await(head, len(body))
        later = self._later(head, answering, whole)
        self._task = self._door.loop.create_task(later, name="request")

    def _await(self, head: Head, size: int) -> None:
        """Hold a request of `size` bytes until its answer comes."""
        self._head = head
        self.deadline = math.inf
        held = max(0, size - self._held_bytes)
        self._held_bytes += held
        self._door.hold(held)

    async def _later(self, head: Head, answering: Awaitable[Answer], whole: bytes) -> None:
        try:
            answer = await answering
        except BaseException:  # given up, by us or by whoever was to answer: nobody may wait for it
            self._transport.abort()
            raise
        self._task = None
        if not self._closing:
            self._answer(head, answer, whole)
            self._go_on()

    def _answer(self, head: Head, answer: Answer, whole: bytes) -> None:
        self._done()
        if whole:
            self._again = again.learn(whole, head, answer)
        self._say(answer, head, keep=head.keeps and not self._door.stopping)
        if not self._choked:
            self._wait(self._idle_s)

    def _done(self) -> None:
        """The next request may be taken up."""
        self._head = None
        self._release()
        if self._held_back:
            self._held_back = False
            self._transport.resume_reading()

    def _release(self) -> None:
        if self._held_bytes:
            self._door.hold(-self._held_bytes)
            self._held_bytes = 0

    @abstractmethod
    def _go_on(self) -> None:
        """Take up what has come meanwhile."""
