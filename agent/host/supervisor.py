"""Keeps the server alive: hears its heart, restarts it, loads again, names who felled it."""

import asyncio
import contextlib
import itertools
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agent.device import pressure
from agent.errors import BadInput, Refused, TrimtabError, Unavailable
from agent.host import children, ground
from agent.host.blame import Blame, Verdict
from agent.host.ground import Ground
from agent.host.life import DEFAULT_PACE, Life, Pace
from agent.host.offer import INFERENCE, Offer
from agent.protocol.private import LoadReply, LoadRequest, ServerStatus

_LOG = logging.getLogger(__name__)
_INDEXES = 65_535
_NOTICE_S = 0.5
_KILLED = children.describe_exit(-signal.SIGKILL)


class Supervisor:
    """The server as the agent sees it: load, unload, and it stays up.

    `on_crash(blamed, how)` hears of each death, with the model's name where exactly one was being
    executed; `on_up()` hears each time that it serves all that is wanted. `on_counters` gets each
    ServerStatus once: its counters are to be added up, across restarts too. `clock` is monotonic,
    in seconds.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        unix_path: Path | None = None,
        private_dir: Path | None = None,
        offer: Offer = INFERENCE,
        on_crash: Callable[[str | None, str], None] = lambda _blamed, _how: None,
        on_up: Callable[[], None] = lambda: None,
        on_counters: Callable[[ServerStatus], None] = lambda _status: None,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self._address = (host, port, unix_path)
        self._private_dir = private_dir
        self._offer = offer
        self._shut = False
        self._oom_kills = pressure.oom_kills()
        self._on_crash, self._on_up, self._on_counters = on_crash, on_up, on_counters
        self._clock, self._pace = clock, pace
        self._wanted: dict[str, LoadRequest] = {}
        self._asked: dict[int, LoadRequest] = {}
        self._indexes = itertools.cycle(range(1, _INDEXES + 1))
        self._blame = Blame()
        self._changing = asyncio.Lock()
        self._mending: set[asyncio.Task[None]] = set()
        self._up = asyncio.Event()
        self._ground: Ground | None = None
        self._life: Life | None = None
        self._task: asyncio.Task[None] | None = None
        self._status: ServerStatus | None = None
        self._restarts = 0
        self._ever_up = False

    @property
    def http_port(self) -> int:
        """The port that it listens on, also where 0 was asked for."""
        assert self._ground is not None, "not started"
        return self._ground.http_port

    @property
    def status(self) -> ServerStatus | None:
        """What the server said last; None while it is down."""
        return self._status

    @property
    def restarts(self) -> int:
        """How often the server had to be started again."""
        return self._restarts

    @property
    def up(self) -> bool:
        """Whether the server answers and has all wanted models loaded."""
        return self._up.is_set()

    def live(self) -> dict[str, str]:
        """The sha256 of what serves, by name; while the server is down, of what will again."""
        return {name: request.sha256 for name, request in self._wanted.items()}

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
        self._shut = shut
        host, port, unix_path = self._address
        self._ground = ground.prepare(
            host=host, port=port, unix_path=unix_path, private_dir=self._private_dir,
            offer=self._offer,
        )  # fmt: skip
        self._task = asyncio.create_task(self._run(self._ground), name="server supervisor")
        up = asyncio.create_task(self._up.wait(), name="server start")
        try:
            await asyncio.wait(
                {up, self._task},
                timeout=self._pace.start_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._task.done():
                self._task.result()  # raises what ended it
            if not self._up.is_set():
                raise Unavailable(f"cannot start the server in {self._pace.start_s} s")
        except BaseException:
            await self.stop()
            raise
        finally:
            up.cancel()

    async def open(self) -> None:
        """Let callers in, now and after each restart."""
        self._shut = False
        life = self._life
        if life is not None and self._up.is_set():
            with contextlib.suppress(Unavailable):  # it died just now: the next one opens itself
                await life.client.open()

    async def stop(self) -> None:
        """End the server, let it finish what it is answering; close the sockets. Fine twice."""
        ending = {*self._mending, *([self._task] if self._task is not None else [])}
        for task in ending:
            task.cancel()
        if ending:
            await asyncio.wait(ending)
        if self._ground is not None:
            self._ground.close()

    async def load(self, request: LoadRequest) -> LoadReply:
        """Load a variant and switch to it; from then on it is loaded again after each restart.

        `request.index` is given here anew. While the server is down it waits.

        Raises:
            BadInput, Corrupt: the file is not what it should be.
            Refused: it answers its probe wrongly, or the server died of it.
            Unavailable: the server does not answer, or died for another reason.
        """
        async with self._changing:
            life = await self._running()
            asked = request.model_copy(update={"index": next(self._indexes)})
            self._asked[asked.index] = asked
            self._forget_replaced()
            try:
                reply = await life.client.load(asked)
            except asyncio.CancelledError:
                self._mend(asked.name)
                raise
            except Unavailable as error:
                verdict = await life.verdict_soon()
                if verdict is None:
                    self._mend(asked.name)
                elif verdict.guilty and asked in verdict.suspects:
                    raise Refused(f"cannot load {asked.name}: the server: {verdict}") from error
                raise
            self._wanted[asked.name] = asked
        return reply

    def _mend(self, name: str) -> None:
        """Undo a load that nobody waits for any more: the server may go on with it and switch."""
        task = asyncio.create_task(self._put_back(name), name=f"mending {name}")
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _put_back(self, name: str) -> None:
        async with self._changing:
            try:
                life = await self._running()  # a new process has loaded just what is wanted
                if name in self._wanted:
                    await life.client.load(self._wanted[name])
                else:
                    await life.client.unload(name)
            except BadInput as error:
                _LOG.info("nothing to put back: %s", error)
            except TrimtabError as error:
                _LOG.warning("cannot put %s back: %s", name, error)

    async def unload(self, name: str) -> None:
        """Take a model out of service for good.

        Raises:
            BadInput: it is not live.
            Unavailable: the server does not answer; it will not load it again in any case.
        """
        if self._wanted.pop(name, None) is None:
            raise BadInput(f"cannot unload {name}: it is not live")
        if self._up.is_set() and self._life is not None:
            await self._life.client.unload(name)

    async def _running(self) -> Life:
        try:
            async with asyncio.timeout(self._pace.start_s):
                await self._up.wait()
        except TimeoutError as error:
            raise Unavailable("cannot load: the server is not up") from error
        assert self._life is not None
        return self._life

    def _forget_replaced(self) -> None:
        current = {request.index for request in self._wanted.values()}
        # The newest indexes may belong to loads that are under way.
        for index in sorted(self._asked)[:-64]:
            if index not in current:
                del self._asked[index]

    async def _run(self, ground_: Ground) -> None:
        """Start a server, live its life, judge its death, again and again."""
        quick_deaths, unclear = 0, False
        try:
            while True:
                began_s = self._clock()
                ground_.page.clear()
                self._life = life = await Life.begin(ground_, pace=self._pace, serial=unclear)
                verdict = self._judge(await self._live(life), ground_)
                life.judge(verdict)
                unclear = verdict.unclear
                quick = self._clock() - began_s < self._pace.quick_death_s
                quick_deaths = quick_deaths + 1 if quick else 0
                if not self._ever_up and quick_deaths >= self._pace.hopeless:
                    raise Unavailable(f"cannot start the server: {verdict}")
                self._restarts += 1
                await asyncio.sleep(self._pace.backoff_s(quick_deaths))
        finally:
            self._up.clear()
            if self._life is not None:
                await self._life.end()

    async def _live(self, life: Life) -> str:
        """Follow one process until it is dead; how it ended."""
        follow = asyncio.create_task(self._follow(life), name="server heartbeat")
        death = asyncio.create_task(life.died(), name="server death")
        try:
            await asyncio.wait({follow, death}, return_when=asyncio.FIRST_COMPLETED)
            # Its silence may be noticed a moment before its death.
            await asyncio.wait({death}, timeout=_NOTICE_S)
            if not death.done():
                _LOG.error("the server is killed: %s", follow.result())
                await life.kill()
                return follow.result()
            return death.result()
        finally:
            self._up.clear()
            self._status = None
            follow.cancel()
            death.cancel()

    async def _follow(self, life: Life) -> str:
        """Load what is wanted, open the public sockets, hear the heart; why no longer."""
        try:
            self._heard(await life.beat(timeout_s=self._pace.start_s))
            for name in list(self._wanted):
                await self._reload(life, name)
            if not self._shut:
                await life.client.open()
        except Unavailable as error:
            return f"not up: {error}"
        self._ever_up = True
        self._up.set()
        self._on_up()
        missed = 0
        while missed < self._pace.missed:
            await asyncio.sleep(self._pace.poll_s)
            try:
                self._heard(await life.beat(timeout_s=self._pace.answer_s))
                missed = 0
            except Unavailable as error:
                missed += 1
                _LOG.warning("the server missed a heartbeat (%d): %s", missed, error)
        return f"missed {missed} heartbeats"

    def _heard(self, status: ServerStatus) -> None:
        self._status = status
        self._on_counters(status)

    async def _reload(self, life: Life, name: str) -> None:
        request = self._wanted.get(name)
        if request is None:  # unloaded while others were being loaded
            return
        try:
            await life.client.load(request)
            if name not in self._wanted:  # unloaded meanwhile
                await life.client.unload(name)
        except TrimtabError as error:
            if isinstance(error, Unavailable) and await life.gone():
                raise
            self._wanted.pop(name, None)
            self._on_crash(name, f"and it cannot be loaded again: {error}")

    def _judge(self, how: str, ground_: Ground) -> Verdict:
        suspects = [self._asked[index] for index in ground_.page.busy() if index in self._asked]
        # A model cannot send SIGKILL; the kernel does so for it when memory ends.
        oom_kills, self._oom_kills = pressure.oom_kills() - self._oom_kills, pressure.oom_kills()
        by_others = how == _KILLED and oom_kills == 0
        verdict = self._blame.judge(how, suspects, now_s=self._clock(), by_others=by_others)
        blamed = verdict.blamed
        if verdict.expelled and blamed is not None and self._wanted.get(blamed.name) == blamed:
            del self._wanted[blamed.name]
        _LOG.error("the server ended: %s", verdict)
        self._on_crash(blamed.name if blamed else None, verdict.cause if blamed else str(verdict))
        return verdict
