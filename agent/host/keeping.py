"""Lives of the server, one after the other: started, heard, judged, started again."""

import asyncio
import logging
import signal
from collections.abc import Callable

from agent.device import pressure
from agent.errors import TrimtabError, Unavailable
from agent.host import children
from agent.host.blame import Blame, Verdict
from agent.host.ground import Ground
from agent.host.life import Life, Pace
from agent.host.wanted import Wanted
from agent.protocol.private import ServerStatus

_LOG = logging.getLogger(__name__)
_NOTICE_S = 0.5
_KILLED = children.describe_exit(-signal.SIGKILL)
OnCrash = Callable[[str | None, str, str], None]
"""The one who is blamed, how the server died, and the last that it wrote."""


class Keeper:
    """Keeps one server process alive on a ground, with all that is wanted loaded.

    `up` is set while it answers and has everything loaded; `life` is the process of now.
    """

    def __init__(
        self,
        wanted: Wanted,
        *,
        on_crash: OnCrash,
        on_up: Callable[[], None],
        on_status: Callable[[ServerStatus], None],
        clock: Callable[[], float],
        pace: Pace,
    ) -> None:
        """Tell each death, each time that it is up, and each status; `clock` is monotonic."""
        self._wanted = wanted
        self._on_crash, self._on_up, self._on_status = on_crash, on_up, on_status
        self._clock, self._pace = clock, pace
        self._oom_kills = pressure.oom_kills()
        self._blame = Blame()
        self._ever_up = False
        self.up = asyncio.Event()
        self.shut = False
        self.life: Life | None = None
        self.status: ServerStatus | None = None
        self._resting: tuple[str, ...] = ()
        self.restarts = 0

    async def run(self, ground_: Ground) -> None:
        """Start a server, live its life, judge its death, again and again.

        Raises:
            Unavailable: no process can be started, or it never comes up.
        """
        quick_deaths, unclear = 0, False
        try:
            while True:
                began_s = self._clock()
                ground_.page.clear()
                self.life = life = await Life.begin(ground_, pace=self._pace, serial=unclear)
                verdict = self._judge(await self._live(life), ground_, life)
                life.judge(verdict)
                unclear = verdict.unclear
                quick = self._clock() - began_s < self._pace.quick_death_s
                quick_deaths = quick_deaths + 1 if quick else 0
                if not self._ever_up and quick_deaths >= self._pace.hopeless:
                    raise Unavailable(f"cannot start the server: {verdict}")
                self.restarts += 1
                await asyncio.sleep(self._pace.backoff_s(quick_deaths))
        finally:
            self.up.clear()
            if self.life is not None:
                await self.life.end()

    async def living(self) -> Life:
        """The process of now, when it is up.

        Raises:
            Unavailable: it does not come up for as long as a start may take.
        """
        try:
            async with asyncio.timeout(self._pace.start_s):
                await self.up.wait()
        except TimeoutError as error:
            raise Unavailable("cannot load: the server is not up") from error
        assert self.life is not None
        return self.life

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
            self.up.clear()
            self.status = None
            follow.cancel()
            death.cancel()

    async def _follow(self, life: Life) -> str:
        """Load what is wanted, open the public sockets, hear the heart; why no longer."""
        try:
            self._heard(await life.beat(timeout_s=self._pace.start_s))
            for name in self._wanted.names():
                await self._reload(life, name)
            if not self.shut:
                await life.client.open()
        except Unavailable as error:
            return f"not up: {error}"
        self._ever_up = True
        self.up.set()
        self._on_up()
        missed = 0
        while missed < self._pace.missed:
            await asyncio.sleep(self._pace.poll_s)
            try:
                self._heard(status := await life.beat(timeout_s=self._pace.answer_s))
                self._resting = status.resting
                missed = 0
            except Unavailable as error:
                missed += 1
                _LOG.warning("the server missed a heartbeat (%d): %s", missed, error)
        return f"missed {missed} heartbeats"

    def _heard(self, status: ServerStatus) -> None:
        self.status = status
        self._on_status(status)

    async def _reload(self, life: Life, name: str) -> None:
        request = self._wanted.get(name)
        if request is None:  # unloaded while others were being loaded
            return
        try:
            resting = request.sha256 in self._resting
            await life.client.load(request.model_copy(update={"resting": resting}))
            if self._wanted.get(name) is None:  # unloaded meanwhile
                await life.client.unload(name)
        except TrimtabError as error:
            if isinstance(error, Unavailable) and await life.gone():
                raise
            self._wanted.drop(name)
            self._on_crash(name, f"and it cannot be loaded again: {error}", "")

    def _judge(self, how: str, ground_: Ground, life: Life) -> Verdict:
        suspects = self._wanted.asked(ground_.page.busy())
        # A model cannot send SIGKILL; the kernel does so for it when memory ends.
        oom_kills, self._oom_kills = pressure.oom_kills() - self._oom_kills, pressure.oom_kills()
        by_others = how == _KILLED and oom_kills == 0
        verdict = self._blame.judge(how, suspects, now_s=self._clock(), by_others=by_others)
        blamed = verdict.blamed
        if verdict.expelled and blamed is not None and self._wanted.get(blamed.name) == blamed:
            self._wanted.drop(blamed.name)
        _LOG.error("the server ended: %s", verdict)
        cause = verdict.cause if blamed else str(verdict)
        self._on_crash(blamed.name if blamed else None, cause, life.last_words())
        return verdict
