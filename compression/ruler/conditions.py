"""What happens to the device while it is measured: its clock, its heat, and who else works.

Everything is read below a root folder, so that a small directory tree can stand for a board.
Files that a device lacks say nothing: no reading is no change.
"""

import functools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
CLOCK_TOLERANCE = 0.03
"""Kernels that compute the frequency from counters never give the same figure twice."""

_CPUS = "sys/devices/system/cpu"
_FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Raspberry Pi documentation, vcgencmd get_throttled: bits 0-3 are now, 16-19 since boot.
_SIGNS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")


@dataclass(frozen=True)
class Clock:
    """How fast the CPU may run at one moment. None or 0 where the device does not say."""

    khz: int | None
    """The fastest of the CPUs that this process may run on: the busy one."""
    firmware_bits: int = 0
    throttle_count: int = 0
    """x86: how often the cores and packages were slowed for their heat, since boot."""

    def steady(self, later: "Clock") -> bool:
        """Whether nothing changed between this reading and `later`."""
        if (self.firmware_bits, self.throttle_count) != (later.firmware_bits, later.throttle_count):
            return False
        if self.khz is None or later.khz is None:
            return True
        return abs(later.khz - self.khz) <= CLOCK_TOLERANCE * self.khz

    def signs(self) -> tuple[str, ...]:
        """What slows the board down at this moment, in words."""
        return tuple(sign for bit, sign in enumerate(_SIGNS) if self.firmware_bits >> bit & 1)


def read_clock(root: Path = ROOT) -> Clock:
    """Read the clock and what throttles it (about 10 us per file)."""
    frequencies, counters = _clock_files(root)
    readings = [one for path in frequencies if (one := _number(path))]
    return Clock(
        khz=max(readings, default=None),
        firmware_bits=_number(root / _FIRMWARE, base=16),
        throttle_count=sum(_number(path) for path in counters),
    )


@dataclass(frozen=True)
class Work:
    """CPU time since boot, in seconds over all CPUs (proc(5), stat), and this process's own."""

    total_s: float
    busy_s: float
    steal_s: float
    own_s: float
    load_average: float | None

    def until(self, later: "Work") -> str:
        """Say what others did between this reading and `later`."""
        total_s = later.total_s - self.total_s
        if total_s <= 0:
            return "not known: /proc/stat does not say"
        own_s = later.own_s - self.own_s
        others = max(0.0, later.busy_s - self.busy_s - own_s) / total_s
        steal = (later.steal_s - self.steal_s) / total_s
        text = f"others took {others:.0%} of all CPU time, the host {steal:.0%} (steal)"
        if self.load_average is None:
            return text
        return f"{text}; load average {self.load_average:.2f} before"


def read_work(own_s: float, root: Path = ROOT) -> Work:
    """Read who has worked so far; `own_s` is the CPU time of this process."""
    lines = _text(root / "proc/stat").splitlines()
    words = lines[0].split()[1:9] if lines and lines[0].startswith("cpu ") else []
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    # user, nice, system, idle, iowait, irq, softirq, steal; old kernels have fewer.
    fields = [int(word) * tick_s for word in words if word.isdigit()] + [0.0] * 8
    user, nice, system, idle, waiting, irq, softirq, steal = fields[:8]
    busy = user + nice + system + irq + softirq
    average = _text(root / "proc/loadavg").split()
    return Work(
        total_s=busy + idle + waiting + steal,
        busy_s=busy,
        steal_s=steal,
        own_s=own_s,
        load_average=float(average[0]) if average else None,
    )


def scheduling() -> str:
    """Say how this process is scheduled: policy, nice value, CPUs."""
    policies = {os.SCHED_OTHER: "normal", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    cpus = len(os.sched_getaffinity(0))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return f"{policies.get(policy, 'real-time')} policy, nice {nice}, on {cpus} CPUs, as its parent"


def summary(clocks: Iterable[Clock]) -> str:
    """Say which frequencies were seen and what slowed the board meanwhile."""
    seen = tuple(clocks)
    mhz = [one.khz / 1000 for one in seen if one.khz is not None]
    parts = [f"{min(mhz):.0f} to {max(mhz):.0f} MHz" if mhz else "frequency not known"]
    slowed = {sign for one in seen for sign in one.signs()}
    parts += [sign for sign in _SIGNS if sign in slowed]
    if seen and (more := seen[-1].throttle_count - seen[0].throttle_count):
        parts.append(f"slowed for heat {more} times")
    return ", ".join(parts)


def _clock_files(root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return _found(root, tuple(sorted(os.sched_getaffinity(0))))


@functools.lru_cache(maxsize=4)
def _found(root: Path, cpus: tuple[int, ...]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    folders = [root / _CPUS / f"cpu{number}" for number in cpus]
    exists: Callable[[Path], bool] = Path.exists
    frequencies = (folder / "cpufreq/scaling_cur_freq" for folder in folders)
    counters = (
        folder / f"thermal_throttle/{what}_throttle_count"
        for folder in folders
        for what in ("core", "package")
    )
    return tuple(filter(exists, frequencies)), tuple(filter(exists, counters))


def _number(path: Path, *, base: int = 10) -> int:
    """Read a file's one number; 0 where there is none."""
    try:
        return int(_text(path), base)
    except ValueError:
        return 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
