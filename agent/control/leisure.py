"""Work that can wait: it goes on while the device is idle, and makes way within a second."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from agent.config import Idle
from agent.control import idleness
from agent.control.heavy import Heavy
from agent.control.record import Record
from agent.device.idleness import Reading
from agent.host.breaks import Breaks
from agent.protocol.events import IdleWork

LOOK_S = 0.25
"""How often the device is looked at while there is such work; a look costs a fraction of a
millisecond."""
Tell = Callable[[str], None]


@dataclass
class _Work:
    """One piece of work, and how it goes."""

    model: str
    version: int
    tell: Tell
    breaks: Breaks = field(default_factory=Breaks)
    because: str = "it has to be seen first that the device is idle"
    calm_since_s: float | None = None
    since_s: float = 0.0
    worked_s: float = 0.0
    waited_s: float = 0.0
    pauses: int = 0

    def turn(self, now_s: float) -> None:
        """Count the time until now on the side on which it was."""
        passed_s, self.since_s = now_s - self.since_s, now_s
        if self.breaks.free:
            self.worked_s += passed_s
        else:
            self.waited_s += passed_s


class Leisure:
    """Says of each piece of such work whether it may go on now, and tells how it went."""

    def __init__(
        self, idle: Idle, *, heavy: Heavy, read: Callable[[Iterable[int]], Reading],
        clock: Callable[[], float], look_s: float = LOOK_S,
    ) -> None:  # fmt: skip
        """Judge by `idle` what `read` tells; `clock` is monotonic, in seconds."""
        self._idle, self._heavy, self._read = idle, heavy, read
        self._clock, self._look_s = clock, look_s
        self._works: list[_Work] = []

    def works(self) -> tuple[IdleWork, ...]:
        """What there is of such work now."""
        return tuple(self._told(work) for work in self._works)

    @contextlib.asynccontextmanager
    async def breaks(self, record: Record, tell: Tell) -> AsyncIterator[Breaks]:
        """Watch the device while work on a record's deployment lasts; `tell` hears of each turn."""
        version = record.deployment.version if record.deployment else 0
        work = _Work(record.model, version, tell, since_s=self._clock())
        self._works.append(work)
        watching = asyncio.create_task(self._watch(work), name=f"leisure of {record.model}")
        try:
            yield work.breaks
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            self._works.remove(work)
            if work.breaks.free:
                self._heavy.give()

    async def _watch(self, work: _Work) -> None:
        work.tell(f"waiting: {work.because}")
        while True:
            reading = self._read(work.breaks.ours)
            wanted = work.breaks.free and self._heavy.wanted
            because = idleness.busy(reading, self._idle, wanted=wanted)
            if because:
                self._halt(work, because)
            elif not work.breaks.free:
                await self._go_on(work)
            await asyncio.sleep(self._look_s)

    def _halt(self, work: _Work, because: str) -> None:
        work.because, work.calm_since_s = because, None
        if not work.breaks.free:
            return
        work.turn(self._clock())
        work.breaks.begin()
        self._heavy.give()
        work.pauses += 1
        work.tell(f"paused: {because}")

    async def _go_on(self, work: _Work) -> None:
        """Let the work go on where it has been calm for long enough, and nobody measures."""
        now_s = self._clock()
        if work.calm_since_s is None:
            work.calm_since_s = now_s
        if now_s - work.calm_since_s < self._idle.calm_s:
            return
        if self._heavy.held:
            work.because = "something else is being measured"
            return
        await self._heavy.take()
        work.turn(self._clock())
        work.because = ""
        work.breaks.end()
        work.tell("going on: the device is idle")

    def _told(self, work: _Work) -> IdleWork:
        work.turn(self._clock())
        return IdleWork(
            model=work.model,
            version=work.version,
            working=work.breaks.free,
            because=work.because,
            worked_s=round(work.worked_s, 3),
            waited_s=round(work.waited_s, 3),
            pauses=work.pauses,
        )
