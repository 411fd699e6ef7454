"""What the deployments ask of the server: by name and sha256, in words of theirs."""

import asyncio
import contextlib

from agent.control.announcer import Announcer
from agent.control.deployer import Deployer
from agent.control.observation import Counters
from agent.errors import BadInput
from agent.host.supervisor import Supervisor


class Served:
    """The server as deployments see it."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Ask `supervisor`."""
        self._supervisor = supervisor

    def sha256(self, name: str) -> str | None:
        """What runs under a name."""
        return self._supervisor.live().get(name)

    def counters(self, name: str, sha256: str) -> Counters:
        """What a variant did since the agent started."""
        tally = self._supervisor.tally(name, sha256)
        return Counters(tally.requests, tally.failures, tally.latency_ms)

    def rss_mib(self) -> float | None:
        """What the server takes in memory; None while it is down."""
        status = self._supervisor.status
        return status.rss_mib if status else None

    async def unload(self, name: str) -> None:
        """Take a model out of service, where it is in it."""
        with contextlib.suppress(BadInput):  # it was not loaded
            await self._supervisor.unload(name)


class Deaths:
    """Tells of each death of the server, and has the model that is to blame fall back."""

    def __init__(self, announcer: Announcer) -> None:
        """Tell by `announcer`; `begin` says who falls back."""
        self._announcer = announcer
        self._falling: set[asyncio.Task[None]] = set()
        self._parts: tuple[Supervisor, Deployer] | None = None

    def begin(self, supervisor: Supervisor, deployer: Deployer) -> None:
        """From now on have models fall back."""
        self._parts = (supervisor, deployer)

    def died(self, blamed: str | None, how: str, said: str) -> None:
        """The server died; `said` is the last that it wrote."""
        running = f" while it ran {blamed}" if blamed else ""
        log_ = {"log": said} if said else {}
        self._announcer.trouble(
            "crashed", f"the server died ({how}){running}", blamed=blamed, **log_
        )
        if blamed is None or self._parts is None:
            return
        supervisor, deployer = self._parts
        if blamed not in supervisor.live():
            falling_back = deployer.lost(blamed, how, said)
            task = asyncio.create_task(falling_back, name=f"fall back of {blamed}")
            self._falling.add(task)
            task.add_done_callback(self._falling.discard)
