"""The composition root: builds every part, hands callables across, runs and stops them."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from agent.config import Settings
from agent.control import announcer, handlers
from agent.control.announcer import Announcer
from agent.control.deployer import Deployer
from agent.control.dispatcher import Dispatcher, Ledger
from agent.control.parts import Parts
from agent.control.record import Records
from agent.device import energy, headroom, profile
from agent.device.sd_notify import Notifier
from agent.errors import BadConfig, BadInput, Corrupt, TrimtabError, Unavailable
from agent.host import compressor
from agent.host.supervisor import Supervisor
from agent.link.mqtt import Link, Message, Will
from agent.link.pull import blob_window
from agent.link.retained import retained
from agent.link.spool import Kind, Spool, Waiting
from agent.protocol import trust
from agent.protocol.events import Event, Reply, Status, Telemetry
from agent.protocol.manifest import FileRef
from agent.protocol.topics import Topics
from agent.store.catalog import Catalog
from agent.store.chunks import Chunks
from agent.store.download import OnProgress, fetch_file
from agent.telemetry import status_page
from agent.telemetry.reporter import Reporter
from agent.telemetry.view import Counts, HostMeter, StatusView
from compression.job import Budget

log = logging.getLogger(__name__)

_COMMANDS_WAITING = 64
_STOP_S = 15.0
_PATIENCE_S = 60.0


class App:
    """One agent on one device."""

    def __init__(self, settings: Settings) -> None:
        """Build every part; nothing runs yet.

        Raises:
            BadConfig: a key or a TLS file cannot be used, or the state folder cannot be made.
            Unavailable: another agent works in the same state folder, or a port is taken.
        """
        self.settings = settings
        self._state_dir = _own(settings.state_dir)
        self._keys = _keys(settings.keys_dir)
        self._profile = profile.read()
        self._source = energy.for_board(
            self._profile.board,
            machine=self._profile.machine,
            override=settings.joules_per_cpu_second,
        )
        self._topics = Topics(settings.prefix)
        self._started_at_s = time.time()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._notifier = Notifier()
        self._host_meter, self._page_meter = HostMeter(), HostMeter()
        self._tasks: list[asyncio.Task[None]] = []
        self._pulls = 0
        device = settings.device_id

        self.spool = Spool(self._state_dir / "spool.db", most_bytes=int(settings.spool_mib * 2**20))
        self.link = Link(
            settings.broker,
            client_id=f"trimtab-{device}",
            will=Will(self._topics.status(device), announcer.offline(device).to_json()),
            on_connected=self._changed.set,
        )
        self.announcer = Announcer(
            device, enqueue=self._enqueue, changed=self._changed.set, clock=time.time
        )
        self.reporter = Reporter(
            device,
            source=self._source,
            host=HostMeter().read,
            counts=self._counts,
        )
        self.supervisor = Supervisor(
            host=settings.http_host,
            port=settings.http_port,
            on_crash=self._on_crash,
            on_counters=self.reporter.observe,
        )
        self._chunks = Chunks(self._state_dir / "chunks")
        self.deployer = Deployer(self._parts(), Records(self._state_dir / "records"))
        self.dispatcher = Dispatcher(
            device=device,
            groups=settings.groups,
            keys=self._keys,
            handlers=handlers.table(self.deployer, self.describe),
            ledger=Ledger(self._state_dir / "commands.json"),
            clock=time.time,
        )
        self._commands: asyncio.Queue[Message] = asyncio.Queue(_COMMANDS_WAITING)
        self._page = status_page.bind(settings.health_host, settings.health_port)

    # --- What the parts ask of one another ------------------------------------------------

    def _parts(self) -> Parts:
        settings = self.settings
        return Parts(
            state_dir=self._state_dir,
            catalog=Catalog(self._state_dir / "models"),
            fetch_manifest=self._fetch_manifest,
            fetch_file=self._fetch_file,
            drop_chunks=self._drop_chunks,
            trial=compressor.trial,
            compress=partial(compressor.compress, memory_mib=settings.worker_memory_mib),
            load=self.supervisor.load,
            unload=self._unload,
            served=self.served,
            device_class=self._profile.device_class,
            default_budget=self._default_budget,
            available_mib=lambda: headroom.memory_available()[0] / 2**20,
            work_memory_mib=settings.work_memory_mib,
            emit=self.announcer,
            heavy=asyncio.Lock(),
        )

    async def _fetch_manifest(self, name: str, version: int) -> bytes:
        sealed = await retained(
            self.link, self._topics.model(name, version), timeout_s=self.settings.pull_timeout_s
        )
        return trust.open_sealed(sealed, payload_type=trust.MANIFEST, keys=self._keys)

    async def _fetch_file(self, ref: FileRef, target: Path, on_progress: OnProgress) -> None:
        self._pulls += 1
        try:
            damaged = await fetch_file(
                ref,
                get=lambda names: blob_window(
                    self.link,
                    topics=self._topics,
                    names=names,
                    timeout_s=self.settings.pull_timeout_s,
                ),
                into=self._chunks,
                target=target,
                window=self.settings.window_topics,
                disk_reserve_bytes=int(self.settings.disk_reserve_mib * 2**20),
                on_progress=on_progress,
            )
        finally:
            self._pulls -= 1
        if damaged:
            self.announcer.trouble(
                "corrupt", f"{damaged} chunks of {target.name} came damaged and were pulled again"
            )

    def _drop_chunks(self) -> None:
        if not self._pulls:  # another model's pull still needs its own
            self._chunks.collect()

    async def _unload(self, name: str) -> None:
        with contextlib.suppress(BadInput):  # it was not loaded
            await self.supervisor.unload(name)

    def _default_budget(self) -> Budget:
        room = headroom.read(
            state_dir=self._state_dir,
            idle_cpu_share=1.0 - self._host_meter.read().cpu_share,
            quota_cores=self._profile.cpu_quota_cores,
        )
        return headroom.default_budget(room, self._profile)

    def served(self, name: str) -> str | None:
        """The sha256 of what the server runs under a name."""
        request = self.supervisor.live().get(name)
        return request.sha256 if request else None

    def _counts(self) -> Counts:
        return Counts(self.supervisor.restarts, self.spool.dropped)

    def _on_crash(self, blamed: str | None, how: str) -> None:
        running = f" while it ran {blamed}" if blamed else ""
        self.announcer.trouble("crashed", f"the server died ({how}){running}", blamed=blamed)

    # --- What the fleet and the status page see -------------------------------------------

    def status(self) -> Status:
        """The retained status as it is now."""
        return announcer.status(
            self.settings.device_id,
            at_s=time.time(),
            device_class=self._profile.device_class,
            records=self.deployer.records(),
            served=self.served,
            server_up=self.supervisor.status is not None,
            http_url=f"http://{self.settings.http_host}:{self.supervisor.http_port}",
        )

    def describe(self) -> dict[str, Any]:
        """The answer to the command of that name."""
        return {
            "status": self.status().model_dump(exclude_none=True),
            "profile": self._profile.model_dump(exclude_none=True),
            "default_budget": self._default_budget().model_dump(exclude_none=True),
            "health_url": self.health_url,
        }

    def view(self) -> StatusView:
        """What the status page and the metrics show."""
        return StatusView(
            status=self.status(),
            started_at_s=self._started_at_s,
            host=self._page_meter.read(),
            counts=self._counts(),
            totals=self.reporter.totals(),
            server_rss_mib=self.reporter.server_rss_mib,
            energy_method=self._source.method,
            relative_uncertainty=self._source.relative_uncertainty,
        )

    @property
    def health_url(self) -> str:
        """Where the status page is."""
        return f"http://{self.settings.health_host}:{self._page.getsockname()[1]}"

    def _enqueue(self, rank: Kind, event: Event) -> None:
        self.spool.put(rank, self._topics.event(self.settings.device_id), event.to_json())

    def _enqueue_telemetry(self, telemetry: Telemetry) -> None:
        self.spool.put(
            "telemetry", self._topics.telemetry(self.settings.device_id), telemetry.to_json()
        )

    # --- Running --------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve, obey and report until `stop`; then stop everything in reverse."""
        settings, topics = self.settings, self._topics
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.spool.close)
            await self._task(stack, status_page.serve(self._page, self.view), "status page")
            await self.supervisor.start()
            stack.push_async_callback(self.supervisor.stop)
            # What served before serves again, before anybody out there is asked anything.
            for trouble in await self.deployer.resume():
                self.announcer.trouble("crashed", trouble)
            stack.push_async_callback(self.deployer.stop)
            await self._task(stack, self._obey(), "commands")
            audiences = [f"device/{settings.device_id}", *(f"group/{g}" for g in settings.groups)]
            await self.link.keep([topics.command(a) for a in audiences], self._receive)
            await self.link.start()
            stack.push_async_callback(self.link.stop)
            stack.push_async_callback(self._say_goodbye)
            await self._task(
                stack, self.spool.keep_draining(self._publish, online=self._online), "spool"
            )
            await self._task(stack, self._keep_status(), "status")
            reporting = self.reporter.run(
                settings.telemetry_interval_s, enqueue=self._enqueue_telemetry
            )
            await self._task(stack, reporting, "telemetry reporter")
            log.info("serving on port %s, status on %s", self.supervisor.http_port, self.health_url)
            self._notifier.ready(f"serving on port {self.supervisor.http_port}")
            await self._watch()
            self._notifier.stopping()

    async def _watch(self) -> None:
        """Feed the watchdog while the loop turns and the supervisor keeps its deadlines."""
        interval_s = self._notifier.watchdog_interval_s or 5.0
        while not self._stopping.is_set():
            for task in self._tasks:
                if task.done():
                    task.result()  # a bug or a dead port ends the agent, loudly
            self.supervisor.check()
            self._notifier.watchdog()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), min(interval_s, 5.0))

    async def _task(
        self, stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None], name: str
    ) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_S)

        stack.push_async_callback(end)

    async def _online(self) -> None:
        while not self.link.online:
            with contextlib.suppress(Unavailable):
                await self.link.connected(_PATIENCE_S)

    async def _publish(self, waiting: Waiting) -> None:
        await self.link.publish(waiting.topic, waiting.payload, correlation=waiting.correlation)

    def _receive(self, message: Message) -> None:
        try:
            self._commands.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("dropped a command: %d wait already", _COMMANDS_WAITING)

    async def _obey(self) -> None:
        while True:
            message = await self._commands.get()
            try:
                reply = await self.dispatcher.handle(message.payload)
            except Corrupt as error:
                self.announcer.trouble("corrupt", str(error))
            except TrimtabError as error:
                self.announcer.trouble("refused", str(error))
            except Exception:
                log.exception("a bug in handling a command")
            else:
                self._reply(message, reply)

    def _reply(self, message: Message, reply: Reply) -> None:
        if not message.response_topic:
            return
        try:
            self.spool.put(
                "reply", message.response_topic, reply.to_json(), correlation=message.correlation
            )
        except TrimtabError as error:
            log.warning("cannot keep a reply: %s", error)

    async def _keep_status(self) -> None:
        """Publish the status whenever something changed; only the newest one matters."""
        topic = self._topics.status(self.settings.device_id)
        while True:
            await self._changed.wait()
            await self._online()
            self._changed.clear()
            try:
                await self.link.publish(topic, self.status().to_json(), retain=True)
            except TrimtabError as error:
                log.debug("status waits: %s", error)
                self._changed.set()
                await asyncio.sleep(1.0)

    async def _say_goodbye(self) -> None:
        if self.link.online:
            gone = announcer.offline(self.settings.device_id).model_copy(
                update={"at_s": time.time()}
            )
            with contextlib.suppress(TrimtabError):
                await self.link.publish(
                    self._topics.status(self.settings.device_id), gone.to_json(), retain=True
                )


def _own(folder: Path) -> Path:
    """Make the state folder and lock it: two agents in one would undo one another's work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadConfig(f"cannot use the state folder {folder}: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the process ends
    except OSError as error:
        raise Unavailable(f"cannot use {folder}: another agent works in it") from error
    return folder.resolve()


def _keys(folder: Path) -> Sequence[Key]:
    try:
        keys = trust.load_keys(folder)
    except (BadInput, OSError) as error:
        raise BadConfig(str(error)) from error
    if not keys:
        log.warning("no trusted key in %s: every command will be refused", folder)
    return keys


async def serve(settings: Settings) -> None:
    """Run one agent until SIGTERM or SIGINT."""
    app = App(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    await app.run()
