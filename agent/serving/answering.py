"""The answering half of a connection: one request at a time, now or when its model has run."""

import asyncio
import math
from collections.abc import Awaitable

from agent.serving.again import Again
from agent.serving.api import Answer, Request
from agent.serving.door import Door
from agent.serving.heads import Head
from agent.serving.line import Line


class Answering(Line):
    """A connection as far as it does not matter how requests come."""

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._head: Head | None = None
        """Of the request whose body comes, or which is being answered."""
        self._task: asyncio.Task[None] | None = None
        self._again: Again | None = None
        """What was asked last, where it can be answered by rote."""
        self._held_bytes = 0
        self._held_back = False
        """The client sent too far ahead."""
        self._idle_s = door.bounds.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more: what has not begun never will."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()
        self._release()

    def _by_rote(self, data: bytes) -> bool:
        """Answer what is asked again; False: it has to be read."""
        if self._again is None or self._door.stopping or self._transport.is_closing():
            return False
        answer = self._again.answer(data)
        if answer is None:
            return False
        self._transport.write(answer)
        if not self._choked:
            self._wait(self._idle_s)
        return True

    def _begin(self, head: Head, body: memoryview) -> Answer | None:
        """Answer a request, now or when what it waits for is there; the answer that it has now."""
        answering = self._door.begin(
            Request(head.method, head.path, head.query, head.headers, body)
        )
        if isinstance(answering, Answer):
            self._answer(head, answering)
            return answering
        self._head = head
        self.deadline = math.inf
        held = max(0, len(body) - self._held_bytes)
        self._held_bytes += held
        self._door.hold(held)
        self._task = self._door.loop.create_task(self._later(head, answering), name="request")
        return None

    async def _later(self, head: Head, answering: Awaitable[Answer]) -> None:
        try:
            answer = await answering
        except BaseException:  # given up, by us or by whoever was to answer: nobody may wait for it
            self._transport.abort()
            raise
        self._task = None
        if not self._closing:
            self._answer(head, answer)
            self._go_on()

    def _answer(self, head: Head, answer: Answer) -> None:
        self._head = None
        self._release()
        if self._held_back:
            self._held_back = False
            self._transport.resume_reading()
        self._say(answer, head, keep=head.keeps and not self._door.stopping)
        if not self._choked:
            self._wait(self._idle_s)

    def _release(self) -> None:
        if self._held_bytes:
            self._door.hold(-self._held_bytes)
            self._held_bytes = 0

    def _go_on(self) -> None:
        """Take up what has come meanwhile."""
        raise NotImplementedError
