"""Headroom over time: what was free lately, without what our own work took of it.

A budget that is right at three in the morning may starve whoever needs the device at nine. So the
formula of docs/budget.md goes by the last day: stretches of five minutes, in each the least memory
that was free and how idle it was on average; then what held in all but the tightest of them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

from agent.device import headroom, kernel, profile

SPAN_S = 24 * 3600.0
STRETCH_S = 300.0
LOOK_S = 30.0
"""How often to look; a look costs 16 ms where a hundred processes run."""
TIGHT_MEMORY, TIGHT_IDLE = 0.05, 0.1
"""The share of stretches that may be tighter: an upgrade of an hour shall not decide a day."""
SERVER = "agent.serving.server"


@dataclass
class _Stretch:
    begins_s: float
    least_mib: float
    idle: list[float] = field(default_factory=list)


class Lately:
    """What was free in the last day; times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._stretches: deque[_Stretch] = deque()

    def add(self, now_s: float, *, free_mib: float, idle_share: float | None) -> None:
        """Add one look: memory that would be free without us, and how idle the CPUs were."""
        if not self._stretches or now_s - self._stretches[-1].begins_s >= STRETCH_S:
            self._stretches.append(_Stretch(now_s, free_mib))
        last = self._stretches[-1]
        last.least_mib = min(last.least_mib, free_mib)
        if idle_share is not None:
            last.idle.append(idle_share)
        while now_s - self._stretches[0].begins_s >= SPAN_S:
            self._stretches.popleft()

    def free_mib(self) -> float | None:
        """What was free of memory in all but the tightest stretches; None before any look."""
        return _but_for([one.least_mib for one in self._stretches], TIGHT_MEMORY)

    def idle_share(self) -> float | None:
        """How idle the CPUs were in all but the busiest stretches; None before any look."""
        means = [sum(one.idle) / len(one.idle) for one in self._stretches if one.idle]
        return _but_for(means, TIGHT_IDLE)


def _but_for(values: Sequence[float], share: float) -> float | None:
    """The least of `values`, but for a share of them."""
    ordered = sorted(values)
    return ordered[int(share * len(ordered))] if ordered else None


@dataclass(frozen=True)
class Ours:
    """What our own processes take: CPU seconds of the worker and trials, memory of all in MiB."""

    work_cpu_s: float = 0.0
    work: frozenset[int] = frozenset()
    memory_mib: float = 0.0
    server_mib: float = 0.0


def ours() -> Ours:
    """Look at the children of this process: the server serves, all others work."""
    seconds, memory, server, work = 0.0, 0.0, 0.0, set()
    for child in psutil.Process().children(recursive=True):
        try:
            mib = child.memory_full_info().uss / 2**20
            memory += mib
            if SERVER in child.cmdline():
                server += mib
            else:
                times = child.cpu_times()
                seconds += times.user + times.system
                work.add(child.pid)
        except psutil.Error:  # it ended just now
            continue
    return Ours(seconds, frozenset(work), memory, server)


class Watch:
    """Looks now and then, and tells the headroom of the last day."""

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        sampler: headroom.Sampler = headroom.sample,
        available: Callable[[], float] = lambda: headroom.memory_available()[0] / 2**20,
        look: Callable[[], Ours] = ours,
    ) -> None:
        self.lately = Lately()
        self._clock, self._sampler, self._available, self._look = clock, sampler, available, look
        self._cpus = profile.allowed_cpus()
        self._before: tuple[float, dict[int, kernel.CpuTimes], Ours] | None = None

    def look(self) -> None:
        """Take one look."""
        now_s, times, mine = self._clock(), self._sampler(), self._look()
        idle = None
        # A worker that came or went in between took what nobody can tell.
        if self._before is not None and self._before[2].work == mine.work:
            before_s, before, then = self._before
            spent = (mine.work_cpu_s - then.work_cpu_s) / max(1, len(self._cpus))
            share = kernel.idle_share(before, times, cpus=self._cpus)
            idle = min(1.0, share + spent / max(1e-9, now_s - before_s))
        self._before = (now_s, times, mine)
        self.lately.add(now_s, free_mib=self._available() + mine.memory_mib, idle_share=idle)

    def drawn_in(self, now: headroom.Headroom) -> headroom.Headroom:
        """The headroom of now, no more than that of the last day.

        What the server holds now is not free, whatever was before it was loaded; what the worker
        holds now will be free again.
        """
        mine = self._look()
        free, idle = self.lately.free_mib(), self.lately.idle_share()
        at_rest = now.memory_available_mib + mine.memory_mib - mine.server_mib
        changes: dict[str, object] = {"memory_available_mib": round(at_rest, 1)}
        if free is not None and free - mine.server_mib < at_rest:
            changes = {
                "memory_available_mib": round(max(0.0, free - mine.server_mib), 1),
                "memory_bound_by": "the last day",
            }
        if idle is not None and (now.idle_cpu_share > idle or mine.work):
            changes["idle_cpu_share"] = round(idle, 4)
        return now.model_copy(update=changes)
