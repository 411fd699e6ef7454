"""What is seen of this agent from outside: the retained status, describe, the status page."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from agent.config import Settings
from agent.control import announcer
from agent.control.deployer import Deployer
from agent.device import headroom
from agent.device.lately import LOOK_S, Watch
from agent.device.profile import Profile
from agent.errors import TrimtabError, Unavailable
from agent.host.supervisor import Supervisor
from agent.link.mqtt import Link
from agent.link.spool import Spool
from agent.protocol.events import Status
from agent.protocol.topics import Topics
from agent.telemetry.reporter import Reporter
from agent.telemetry.view import Counts, HostMeter, StatusView
from compression.job import Budget

log = logging.getLogger(__name__)

_PATIENCE_S = 60.0
_GOODBYE_S = 2.0


class Outlook:
    """Frozen views of the parts, made when somebody looks."""

    def __init__(
        self,
        settings: Settings,
        *,
        device: Profile,
        deployer: Deployer,
        supervisor: Supervisor,
        reporter: Reporter,
        spool: Spool,
        watch: Watch,
        health_url: str,
    ) -> None:
        """Look at these parts."""
        self._watch = watch
        self._settings, self._device = settings, device
        self._deployer, self._supervisor = deployer, supervisor
        self._reporter, self._spool = reporter, spool
        self._health_url = health_url
        self._started_at_s = time.time()
        self._meter = HostMeter()

    def status(self) -> Status:
        """The retained status as it is now."""
        # What is told is what runs: while the server is down, nothing does.
        live = self._supervisor.live() if self._supervisor.up else {}
        return announcer.status(
            self._settings.device_id,
            at_s=time.time(),
            device_class=self._device.device_class,
            records=self._deployer.records(),
            served=live.get,
            server_up=self._supervisor.up,
            http_url=f"http://{self._settings.http_host}:{self._supervisor.http_port}",
        )

    def describe(self) -> dict[str, Any]:
        """The answer to the command of that name."""
        budget = default_budget(self._settings, self._device, self._meter, self._watch)
        return {
            "status": self.status().model_dump(mode="json", exclude_none=True),
            "profile": self._device.model_dump(mode="json", exclude_none=True),
            "default_budget": budget.model_dump(mode="json", exclude_none=True),
            "health_url": self._health_url,
        }

    def view(self) -> StatusView:
        """What the status page and the metrics show."""
        return StatusView(
            status=self.status(),
            started_at_s=self._started_at_s,
            host=self._meter.read(),
            counts=Counts(self._supervisor.restarts, self._spool.dropped),
            totals=self._reporter.totals(),
            server_rss_mib=self._reporter.server_rss_mib,
            energy_method=self._reporter.source.method,
            relative_uncertainty=self._reporter.source.relative_uncertainty,
            idle_work=self._reporter.idle_work(),
        )


async def keep_watching(watch: Watch) -> None:
    """Look at what is free, now and then."""
    while True:
        watch.look()
        await asyncio.sleep(LOOK_S)


def default_budget(settings: Settings, device: Profile, meter: HostMeter, watch: Watch) -> Budget:
    """What a model may cost here when nobody said: docs/budget.md, on what was free lately."""
    room = headroom.read(
        state_dir=settings.state_dir,
        idle_cpu_share=1.0 - meter.read().cpu_share,
        quota_cores=device.cpu_quota_cores,
    )
    return headroom.default_budget(watch.drawn_in(room), device)


async def online(link: Link) -> None:
    """Wait until the broker is there, however long that takes."""
    while not link.online:
        with contextlib.suppress(Unavailable):
            await link.connected(_PATIENCE_S)


async def keep_status(
    link: Link, *, topics: Topics, changed: asyncio.Event, status: Callable[[], Status]
) -> None:
    """Publish the status whenever something changed; only the newest one matters."""
    while True:
        await changed.wait()
        await online(link)
        changed.clear()
        now = status()
        try:
            await link.publish(topics.status(now.device), now.to_json(), retain=True)
        except TrimtabError as error:
            log.debug("the status waits: %s", error)
            changed.set()
            await asyncio.sleep(1.0)


async def say_goodbye(link: Link, *, topics: Topics, device: str) -> None:
    """Tell the fleet that this device stops on purpose; the will tells it otherwise."""
    if link.online:
        gone = announcer.offline(device).model_copy(update={"at_s": time.time()})
        # A connection that has stalled must not hold up the end: the will says the same.
        with contextlib.suppress(TrimtabError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await link.publish(topics.status(device), gone.to_json(), retain=True)
