"""One connection after the other: how each comes up, is greeted, and ends."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from agent.link import backoff
from agent.link.connection import Connection

ACK_S = 10.0
"""How long the broker may take for any acknowledgement."""
STAND_AGAIN_S = 60.0


class Uptime:
    """What is known of the connection of now; used from one event loop."""

    def __init__(
        self,
        *,
        where: str,
        stand: Callable[[], Awaitable[bool]],
        on_up: Callable[[], None] | None,
    ) -> None:
        """`stand` subscribes the standing filters, and tells whether the broker took them all."""
        self._where = where
        self.connects = 0
        self.takeovers = 0
        self.online = asyncio.Event()
        self.resumed = False
        """Whether the broker has kept our session."""
        self.most_bytes: int | None = None
        """The broker's Maximum Packet Size."""
        self.why_down = ""
        self._stand, self._on_up = stand, on_up
        self._gone: asyncio.Future[backoff.Ended] | None = None
        self._came_up_s: float | None = None
        self._greeting: asyncio.Task[None] | None = None

    async def attempt(self, connection: Connection, *, stopping: asyncio.Event) -> backoff.Ended:
        """Connect once and follow the connection to its end."""
        gone = self._gone = asyncio.get_running_loop().create_future()
        self._came_up_s = None
        try:
            await connection.open()
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
            self.why_down = str(error)
            return backoff.Ended(str(error), reached=False)
        if stopping.is_set():
            connection.say_goodbye()
        ended = await self._until_gone(gone, connection)
        self.online.clear()
        self.why_down = ended.why
        await connection.close()
        return ended

    def up(self, resumed: bool, most_bytes: int | None) -> None:
        """A CONNACK has come."""
        self.resumed, self.most_bytes = resumed, most_bytes
        self._came_up_s = asyncio.get_running_loop().time()
        self._greeting = asyncio.get_running_loop().create_task(self._greet(), name="mqtt greeting")

    def down(self, why: str, taken_over: bool = False) -> None:
        """The connection is lost."""
        self.takeovers += taken_over
        self.online.clear()
        if self._gone is not None and not self._gone.done():
            now_s = asyncio.get_running_loop().time()
            lasted_s = None if self._came_up_s is None else now_s - self._came_up_s
            self._gone.set_result(backoff.Ended(why, lasted_s, taken_over))

    async def end(self) -> None:
        """Wait for the greeting of a connection that has ended."""
        if self._greeting is not None:
            await asyncio.wait({self._greeting})

    async def _until_gone(
        self, gone: "asyncio.Future[backoff.Ended]", connection: Connection
    ) -> backoff.Ended:
        patience_s = ACK_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    return await asyncio.shield(gone)
            patience_s -= 1.0
            if connection.dead:
                self.down("a packet that cannot be parsed")
            elif not connection.acknowledged and patience_s <= 0:
                self.down(f"no CONNACK in {ACK_S:g} s")

    async def _greet(self) -> None:
        """The standing filters first, then everybody who waits for `online`."""
        gone = self._gone
        standing = await self._stand()
        if gone is None or gone is not self._gone or gone.done():
            return
        self.connects += 1
        self.online.set()
        backoff.log.info("connected to broker %s", self._where)
        if self._on_up is not None:
            self._on_up()
        while not standing:  # nobody would hear commands until the next connection
            await asyncio.wait({gone}, timeout=STAND_AGAIN_S)
            if gone.done():
                return
            standing = await self._stand()
