"""What leaves this device: the link, the spool before it, and those who put something in."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.config import Settings
from agent.control import announcer
from agent.control.announcer import Announcer
from agent.device import energy
from agent.device.profile import Profile
from agent.link.messages import Message, Will
from agent.link.mqtt import Link
from agent.link.spool import Kind, Spool, Waiting
from agent.protocol.events import Event, IdleWork, Status, Telemetry
from agent.protocol.topics import Topics
from agent.telemetry.reporter import Reporter
from agent.telemetry.view import Counts, HostMeter
from agent.wiring import losses
from agent.wiring.outlook import keep_status, online, say_goodbye
from agent.wiring.running import Running


class Outgoing:
    """The link to the broker with the spool, the announcer of events and the reporter."""

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path,
        device: Profile,
        restarts: Callable[[], int],
        idle_work: Callable[[], tuple[IdleWork, ...]],
    ) -> None:
        """Build them; nothing runs yet. `restarts` are the server's."""
        self._settings, self._topics = settings, Topics(settings.prefix)
        name = settings.device_id
        self.changed = asyncio.Event()
        """Set where the status is to be told again."""
        self.spool = Spool(state_dir / "spool.db", most_bytes=int(settings.spool_mib * 2**20))
        self.link = Link(
            settings.broker,
            client_id=f"trimtab-{name}",
            will=Will(self._topics.status(name), announcer.offline(name).to_json()),
            on_connected=self.changed.set,
        )
        self.announcer = Announcer(
            name, enqueue=self._enqueue, changed=self.changed.set, clock=time.time
        )
        override = settings.joules_per_cpu_second
        self.reporter = Reporter(
            name,
            source=energy.for_board(device.board, machine=device.machine, override=override),
            host=HostMeter().read,
            counts=lambda: Counts(restarts(), self.spool.dropped),
            idle_work=idle_work,
        )

    async def begin(
        self, running: Running, stack: contextlib.AsyncExitStack, *,
        receive: Callable[[Message], None], status: Callable[[], Status],
    ) -> None:  # fmt: skip
        """Connect, hear commands, and send what waits; `stack` ends it with a goodbye."""
        settings, topics, link = self._settings, self._topics, self.link
        audiences = [f"device/{settings.device_id}", *(f"group/{g}" for g in settings.groups)]
        await link.keep([topics.command(each) for each in audiences], receive, late=True)
        await link.start()
        stack.push_async_callback(link.stop)
        stack.push_async_callback(
            partial(say_goodbye, link, topics=topics, device=settings.device_id)
        )
        draining = self.spool.keep_draining(
            self._publish,
            online=partial(online, link),
            on_empty=partial(losses.tell, self.spool, self.announcer),
        )
        running.keep(draining, "spool")
        telling = keep_status(link, topics=topics, changed=self.changed, status=status)
        running.keep(telling, "status")
        reporting = self.reporter.run(
            settings.telemetry_interval_s, enqueue=self._enqueue_telemetry
        )
        running.keep(reporting, "telemetry reporter")

    def _enqueue(self, rank: Kind, event: Event) -> None:
        self.spool.put(rank, self._topics.event(event.device), event.to_json())

    def _enqueue_telemetry(self, telemetry: Telemetry) -> None:
        topic = self._topics.telemetry(telemetry.device)
        self.spool.put("telemetry", topic, telemetry.to_json())

    async def _publish(self, waiting: Waiting) -> None:
        await self.link.publish(waiting.topic, waiting.payload, correlation=waiting.correlation)
