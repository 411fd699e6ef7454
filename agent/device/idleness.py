"""What tells whether a device is idle: whose the processor's time is, how warm it is, its power."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.device import kernel, profile

WINDOW_S = 0.5
"""What a share of the processor is judged over: shorter, and its ticks of 10 ms would show."""
SLOW_S = 1.0
"""How often sensors are read; temperatures follow a load within seconds."""


@dataclass(frozen=True)
class Reading:
    """A device at one moment. What it has no sensor for is None."""

    others_cpu_share: float = 0.0
    """Of all CPUs, over the last half second: what neither idles nor is the work's own."""
    celsius: float | None = None
    """The warmest sensor."""
    battery_percent: float | None = None
    on_mains: bool = True
    minute_of_day: int = 0
    """By the device's own time zone."""


@dataclass(frozen=True)
class _Sample:
    at_s: float
    busy: int
    total: int
    ours: int
    whose: frozenset[int]


class Meter:
    """Takes readings; a share is over the last of them."""

    def __init__(
        self, root: Path = profile.ROOT, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._clock = root, clock
        self._cpus = profile.allowed_cpus(root)
        self._samples: deque[_Sample] = deque()
        self._share = 0.0
        self._slow = Reading()
        self._slow_at_s = -SLOW_S

    def read(self, ours: Iterable[int]) -> Reading:
        """The device now; `ours` are the processes whose time is not others'."""
        now_s = self._clock()
        if now_s - self._slow_at_s >= SLOW_S:
            self._slow, self._slow_at_s = _sensors(), now_s
        self._look(now_s, frozenset(ours))
        local = time.localtime()
        return Reading(
            others_cpu_share=self._share,
            celsius=self._slow.celsius,
            battery_percent=self._slow.battery_percent,
            on_mains=self._slow.on_mains,
            minute_of_day=local.tm_hour * 60 + local.tm_min,
        )

    def _ticks_now(self) -> tuple[int, int]:
        """What all CPUs were busy for since the start, and all their time."""
        stat = kernel.cpu_times(kernel.read_text(self._root / "proc/stat"))
        times = [stat[cpu] for cpu in self._cpus if cpu in stat]
        total = sum(each.total for each in times)
        return total - sum(each.idle for each in times), total

    def _look(self, now_s: float, whose: frozenset[int]) -> None:
        busy, total = self._ticks_now()
        mine = sum(_ticks(kernel.read_text(self._root / f"proc/{pid}/stat")) for pid in whose)
        # What a process took between the last look and its death is in nobody's count any more.
        if self._samples and self._samples[-1].whose != whose:
            self._samples.clear()
        self._samples.append(_Sample(now_s, busy, total, mine, whose))
        while len(self._samples) > 2 and now_s - self._samples[1].at_s >= WINDOW_S:
            self._samples.popleft()
        first = self._samples[0]
        if total > first.total:
            others = (busy - first.busy) - (mine - first.ours)
            self._share = min(1.0, max(0.0, others / (total - first.total)))


def _ticks(stat: str) -> int:
    """User and system time of /proc/PID/stat; its second field, in brackets, may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


def _sensors() -> Reading:
    """What psutil knows of temperatures and power; containers and most servers have neither."""
    celsius: list[float] = []
    battery = None
    try:
        found = psutil.sensors_temperatures()
        celsius = [sensor.current for group in found.values() for sensor in group]
        battery = psutil.sensors_battery()
    except (OSError, ValueError, AttributeError):  # a sensor that answers with nonsense
        pass
    plugged = None if battery is None else battery.power_plugged
    return Reading(
        celsius=max(celsius, default=None),
        battery_percent=None if battery is None else float(battery.percent),
        on_mains=battery is None or plugged is not False,
    )
