"""Keeps the server alive: hears its heart, restarts it, loads again, names who felled it."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import Unavailable
from agent.host import ground, small_requests
from agent.host.ground import Ground
from agent.host.keeping import Keeper, OnCrash
from agent.host.life import DEFAULT_PACE, Pace
from agent.host.loads import Loads
from agent.host.offer import INFERENCE, Offer
from agent.host.tallies import Tallies, Tally
from agent.host.wanted import Wanted
from agent.protocol.capturing import CaptureOrder, CaptureStatus
from agent.protocol.commands import Infer
from agent.protocol.private import LoadReply, LoadRequest, ServerStatus


class Supervisor:
    """The server as the agent sees it: load, unload, and it stays up.

    `on_crash(blamed, how, said)` hears of each death, with the model's name where exactly one was
    being executed, and the last that the server wrote; `on_up()` hears each time that it serves
    all that is wanted. `on_counters` gets each ServerStatus once: its counters are to be added up,
    across restarts too. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        unix_path: Path | None = None,
        private_dir: Path | None = None,
        offer: Offer = INFERENCE,
        on_crash: OnCrash = lambda _blamed, _how, _said: None,
        on_up: Callable[[], None] = lambda: None,
        on_counters: Callable[[ServerStatus], None] = lambda _status: None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self._address = (host, port, unix_path)
        self._private_dir = private_dir
        self._offer = offer
        self._pace = pace
        self._on_counters = on_counters
        self._wanted = Wanted()
        self._tallies = Tallies()
        self._keeper = Keeper(
            self._wanted, on_crash=on_crash, on_up=on_up, on_status=self._count, clock=clock,
            pace=pace,
        )  # fmt: skip
        self._loads = Loads(self._keeper, self._wanted)
        self._ground: Ground | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def http_port(self) -> int:
        """The port that it listens on, also where 0 was asked for."""
        assert self._ground is not None, "not started"
        return self._ground.http_port

    @property
    def status(self) -> ServerStatus | None:
        """What the server said last; None while it is down."""
        return self._keeper.status

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return self._keeper.restarts

    @property
    def up(self) -> bool:
        """Whether the server answers and has all wanted models loaded."""
        return self._keeper.up.is_set()

    def live(self) -> dict[str, str]:
        """The sha256 of what serves, by name; while the server is down, of what will again."""
        return {request.name: request.sha256 for request in self._wanted}

    def tally(self, name: str, sha256: str) -> Tally:
        """What a variant did since the agent started."""
        return self._tallies.of(name, sha256)

    def _count(self, status: ServerStatus) -> None:
        self._tallies.add(status)
        self._on_counters(status)

    def check(self) -> None:
        """Raise what ended the supervision, if anything did: then nobody restarts the server."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def start(self, *, shut: bool = False) -> None:
        """Bind the sockets, start the server, and return when it answers us.

        `shut`: callers wait in the backlog until `open`, so that none finds an empty server.

        Raises:
            BadInput, Unavailable: a port is taken, or the server does not come up.
        """
        self._keeper.shut = shut
        host, port, unix_path = self._address
        self._ground = ground.prepare(
            host=host, port=port, unix_path=unix_path, private_dir=self._private_dir,
            offer=self._offer,
        )  # fmt: skip
        self._task = asyncio.create_task(self._keeper.run(self._ground), name="server supervisor")
        up = asyncio.create_task(self._keeper.up.wait(), name="server start")
        try:
            await asyncio.wait(
                {up, self._task},
                timeout=self._pace.start_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._task.done():
                self._task.result()  # raises what ended it
            if not self._keeper.up.is_set():
                raise Unavailable(f"cannot start the server in {self._pace.start_s} s")
        except BaseException:
            await self.stop()
            raise
        finally:
            up.cancel()

    async def open(self) -> None:
        """Let callers in, now and after each restart."""
        self._keeper.shut = False
        life = self._keeper.life
        if life is not None and self._keeper.up.is_set():
            with contextlib.suppress(Unavailable):  # it died just now: the next one opens itself
                await life.client.open()

    async def stop(self) -> None:
        """End the server, let it finish what it is answering; close the sockets. Fine twice."""
        await self._loads.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._ground is not None:
            self._ground.close()

    async def load(self, request: LoadRequest) -> LoadReply:
        """Load a variant and switch to it, as agent.host.loads says."""
        return await self._loads.load(request)

    async def unload(self, name: str) -> None:
        """Take a model out of service for good, as agent.host.loads says."""
        await self._loads.unload(name)

    async def capture(self, order: CaptureOrder) -> CaptureStatus:
        """Have live requests kept, go on with that, or end it.

        Raises:
            Unavailable: the server does not answer now.
        """
        return await (await self._keeper.living()).client.capture(order)

    async def infer(self, order: Infer) -> dict[str, Any]:
        """Answer one small request, as agent.host.small_requests says."""
        return await small_requests.answer((await self._keeper.living()).client, order)
