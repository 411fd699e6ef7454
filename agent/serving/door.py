"""What all connections of one table of routes share: bounds, memory, the token, and patience."""

import asyncio
import hmac
import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from agent.serving import api
from agent.serving.api import Answer, Answering, Request, Routes
from agent.serving.heads import Head
from agent.serving.service import Service

_UNGUARDED = {"/v2/health/live", "/v2/health/ready"}
"""What may be asked without a token: whoever watches over the device has none."""
_COARSE_S = 0.25
"""How late a deadline may be noticed, so that many of them do not wake the device one by one."""


@dataclass(frozen=True)
class Bounds:
    """What clients may take. JSON as Python objects takes many times its length in memory."""

    body_bytes: int = 64 * 1024 * 1024
    json_bytes: int = 16 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    """All bodies together that are being read, or wait for their answer."""
    connections: int = 512
    head_s: float = 30.0
    """How long a head may take to come."""
    idle_s: float = 75.0
    """How long a connection may stay open between two requests."""
    stall_s: float = 20.0
    """In this time a body that is sent, or an answer that is fetched, has to go on ..."""
    least_bytes: int = 16 * 1024
    """... by this much."""


class Turned(NamedTuple):
    """A request that is turned away, and why."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def answer(self) -> Answer:
        """What the client is told."""
        refused = api.as_json({"error": self.text}, status=self.status)
        return refused._replace(headers=self.headers)


class Guest(Protocol):
    """A connection as the door sees it."""

    deadline: float
    """By the loop's clock; infinite while we work and the client waits."""

    @property
    def idle(self) -> bool:
        """Whether it is between two requests."""

    def finish(self) -> None:
        """End after what is being answered."""

    def abort(self) -> None:
        """End now."""

    def expire(self) -> None:
        """The deadline is over."""


class Door:
    """Lets connections in, and counts what they hold.

    `token`: what clients must show as `Authorization: Bearer ...`, except for their health checks.
    """

    def __init__(
        self,
        routes: Routes,
        service: Service,
        *,
        bounds: Bounds = Bounds(),
        token: str | None = None,
    ) -> None:
        self.bounds = bounds
        self.stopping = False
        self.held_bytes = 0
        self.loop = asyncio.get_running_loop()
        self.guests: set[Guest] = set()
        self._routes = routes
        self._service = service
        self._token = None if token is None else token.encode()
        self._empty = asyncio.Event()
        self._empty.set()
        self.looks_at = math.inf
        """When connections are looked at next: an earlier deadline has to be expected."""
        self._looking: asyncio.TimerHandle | None = None

    def begin(self, request: Request) -> Answering:
        """Answer at once, or give an awaitable; cancel it when the client has gone."""
        return api.begin(self._routes, self._service, request)

    def objection(self, head: Head) -> Turned | None:
        """Why a request is turned away before its body is read, if it is."""
        if self._token is not None and head.path not in _UNGUARDED:
            scheme, _, shown = head.headers.get(b"authorization", b"").partition(b" ")
            known = hmac.compare_digest(shown.strip(), self._token)
            if not (known and scheme.lower() == b"bearer"):  # RFC 6750, section 2.1
                challenge = ((b"www-authenticate", b"Bearer"),)
                return Turned(401, "cannot answer: a bearer token is asked for", challenge)
        encoding = head.headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            named = encoding[:20].decode("latin-1")
            return Turned(415, f"cannot read a body encoded as {named!r}")
        if head.length > (most := self.most_bytes(head)):
            return Turned(413, f"cannot accept a body of {head.length} bytes: at most {most}")
        if (head.json_bytes or 0) > (most := self.bounds.json_bytes):
            return Turned(413, f"cannot accept {head.json_bytes} bytes of JSON: at most {most}")
        return None

    def most_bytes(self, head: Head) -> int:
        """How long the body of a request may be."""
        return self.bounds.json_bytes if head.json_bytes is None else self.bounds.body_bytes

    def hold(self, count: int) -> Turned | None:
        """Count memory that a request takes, and say if it is too much.

        Give it back with a negative count, also where it was too much.
        """
        self.held_bytes += count
        if self.held_bytes <= self.bounds.held_bytes:
            return None
        text = f"cannot accept more now: {self.held_bytes} bytes of requests are being held"
        return Turned(503, text, ((b"retry-after", b"1"),))

    def enter(self, guest: Guest) -> bool:
        """Let a connection in; where there are too many, one that is idle makes room."""
        if len(self.guests) >= self.bounds.connections:
            idle = [each for each in self.guests if each.idle]
            if not idle:
                return False
            min(idle, key=lambda each: each.deadline).abort()
        self.guests.add(guest)
        self._empty.clear()
        return True

    def leave(self, guest: Guest) -> None:
        """Forget a connection that has ended."""
        self.guests.discard(guest)
        if not self.guests:
            self._empty.set()

    def expect(self, deadline: float) -> None:
        """See to it that connections are looked at when this deadline is over."""
        if deadline < self.looks_at:
            if self._looking is not None:
                self._looking.cancel()
            self.looks_at = deadline + _COARSE_S
            self._looking = self.loop.call_at(self.looks_at, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        self._looking, self.looks_at = None, math.inf
        for guest in list(self.guests):
            if guest.deadline <= now:
                guest.expire()
        self.expect(min((each.deadline for each in self.guests), default=math.inf))

    async def close(self, *, within_s: float) -> None:
        """Let everyone finish; hang up on those who take longer."""
        self.stopping = True
        for guest in list(self.guests):
            guest.finish()
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            for guest in list(self.guests):
                guest.abort()
        if self._looking is not None:
            self._looking.cancel()
