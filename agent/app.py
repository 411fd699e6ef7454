"""The composition root: builds every part, hands callables across, runs and stops them."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from functools import partial

from agent.config import Settings
from agent.control import handlers
from agent.control.arbitration import Room
from agent.control.deployer import Deployer
from agent.control.dispatcher import Dispatcher
from agent.control.heavy import Heavy
from agent.control.ledger import Ledger
from agent.control.leisure import Leisure
from agent.control.parts import Parts
from agent.control.record import Record, Records, Variant
from agent.device import headroom, idleness, profile
from agent.device.lately import Watch
from agent.device.sd_notify import Notifier
from agent.host import best_so_far, comparing, trials
from agent.host.supervisor import Supervisor
from agent.protocol.topics import Topics
from agent.store.catalog import Catalog
from agent.store.imports import Imports
from agent.telemetry import status_page
from agent.telemetry.view import HostMeter
from agent.wiring import offering
from agent.wiring.ground import in_memory, own, trusted
from agent.wiring.importing import keep_importing
from agent.wiring.inbox import Inbox
from agent.wiring.outgoing import Outgoing
from agent.wiring.outlook import Outlook, default_budget, keep_watching
from agent.wiring.puller import Puller
from agent.wiring.room import room
from agent.wiring.running import Running
from agent.wiring.served import Deaths, Served

log = logging.getLogger(__name__)


class App:
    """One agent on one device."""

    def __init__(self, settings: Settings) -> None:
        """Build every part; nothing runs yet.

        Raises:
            BadConfig: a key or a TLS file cannot be used, or the state folder cannot be made.
            Unavailable: another agent works in the same state folder, or a port is taken.
        """
        self._settings = settings
        self._topics = Topics(settings.prefix)
        self._state_dir = own(settings.state_dir)
        self._keys = trusted(settings.keys_dir)
        self._device = profile.read()
        self._stopping = asyncio.Event()
        self._notifier = Notifier()
        self._page = status_page.bind(settings.health_host, settings.health_port)
        self._heavy = Heavy()
        self._leisure = Leisure(
            settings.idle, heavy=self._heavy, read=idleness.Meter().read, clock=time.monotonic
        )
        self._out = Outgoing(
            settings, state_dir=self._state_dir, device=self._device,
            restarts=self._restarts, idle_work=self._leisure.works,
        )  # fmt: skip
        self._build_deciding()

    def _build_deciding(self) -> None:
        settings = self._settings
        self._deaths = Deaths(self._out.announcer)
        self._supervisor = Supervisor(
            host=settings.http_host,
            port=settings.http_port,
            unix_path=settings.http_unix_path,
            offer=offering.offer(settings),
            # On a read-only disk the private socket lies elsewhere.
            private_dir=self._state_dir / "run" if os.access(self._state_dir, os.W_OK) else None,
            on_crash=self._deaths.died,
            on_up=self._out.changed.set,
            on_counters=self._out.reporter.observe,
        )
        self._served = Served(self._supervisor)
        self._live_inputs = in_memory(self._state_dir)
        self._watching = Watch(time.monotonic)
        self._deployer = Deployer(self._parts(), Records(self._state_dir / "records"))
        self._deaths.begin(self._supervisor, self._deployer)
        self._outlook = Outlook(
            settings,
            device=self._device,
            deployer=self._deployer,
            supervisor=self._supervisor,
            reporter=self._out.reporter,
            spool=self._out.spool,
            watch=self._watching,
            health_url=self.health_url,
        )
        dispatcher = Dispatcher(
            device=settings.device_id,
            groups=settings.groups,
            keys=self._keys,
            handlers=handlers.table(self._deployer, self._outlook.describe, self._supervisor.infer),
            ledger=Ledger(self._state_dir / "commands.json"),
            clock=time.time,
        )
        self._inbox = Inbox(
            dispatcher, topics=self._topics, spool=self._out.spool, announcer=self._out.announcer
        )

    def _parts(self) -> Parts:
        settings = self._settings
        catalog = Catalog(self._state_dir / "models")
        self._imports = Imports(self._state_dir / "imports")
        puller = Puller(
            self._out.link,
            topics=self._topics,
            keys=self._keys,
            catalog=catalog,
            settings=settings,
            announcer=self._out.announcer,
            records=self._records,
            imports=self._imports,
        )
        return Parts(
            state_dir=self._state_dir,
            catalog=catalog,
            fetch_manifest=puller.manifest,
            fetch_file=puller.file,
            trial=trials.trial,
            compress=partial(best_so_far.compress, memory_mib=settings.worker_memory_mib),
            leisure=self._leisure,
            load=self._supervisor.load,
            unload=self._served.unload,
            served=self._served.sha256,
            device_class=self._device.device_class,
            default_budget=partial(
                default_budget, settings, self._device, HostMeter(), self._watching
            ),
            available_mib=_available_mib,
            work_memory_mib=settings.work_memory_mib,
            emit=self._out.announcer,
            heavy=self._heavy,
            capture=self._supervisor.capture,
            gather=comparing.gather,
            shadow=comparing.shadow,
            counters=self._served.counters,
            private_dir=self._live_inputs,
            key_file=settings.inputs_key_file,
            room=self._room,
            neighbours=self._records,
            step=self._step,
        )

    async def _step(self, model: str, variant: Variant, message: str) -> None:
        await self._deployer.step(model, variant, message)

    def _room(self) -> Room:
        return room(
            self._settings,
            records=self._records,
            available_mib=_available_mib,
            server_rss_mib=self._served.rss_mib,
            at_work=lambda: self._heavy.held,
        )

    def _restarts(self) -> int:
        return self._supervisor.restarts

    def _records(self) -> tuple[Record, ...]:
        return self._deployer.records()

    @property
    def health_url(self) -> str:
        """Where the status page is."""
        return f"http://{self._settings.health_host}:{self._page.getsockname()[1]}"

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve, obey and report until `stop`; then stop everything in reverse."""
        settings = self._settings
        async with contextlib.AsyncExitStack() as stack:
            running = Running(stack, self._notifier)
            stack.callback(shutil.rmtree, self._live_inputs, ignore_errors=True)
            stack.callback(self._out.spool.close)
            running.keep(status_page.serve(self._page, self._outlook.view), "status page")
            stack.push_async_callback(self._supervisor.stop)
            await self._supervisor.start(shut=True)
            # What served before serves again, before anybody out there is asked anything.
            stack.push_async_callback(self._deployer.stop)
            async with running.long_start():
                for trouble in await self._deployer.resume():
                    self._out.announcer.trouble("crashed", trouble)
            await self._supervisor.open()
            running.keep(keep_watching(self._watching), "headroom")
            running.keep(self._inbox.obey(), "commands")
            importing = keep_importing(
                self._imports,
                deployer=self._deployer,
                announcer=self._out.announcer,
                device=settings.device_id,
            )
            running.keep(importing, "imports")
            await self._out.begin(
                running, stack, receive=self._inbox.receive, status=self._outlook.status
            )
            port = self._supervisor.http_port
            log.info("serving on port %s, status on %s", port, self.health_url)
            self._notifier.ready(f"serving on port {port}, status on {self.health_url}")
            await running.watch(self._stopping, check=self._supervisor.check)
            self._notifier.stopping()


def _available_mib() -> float:
    return headroom.memory_available()[0] / 2**20


async def serve(settings: Settings) -> None:
    """Run one agent until SIGTERM or SIGINT."""
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()
