"""What is free now, and the Budget that follows from it by the formula of docs/budget.md."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.device import kernel, memory, profile
from compression.job import Budget
from compression.words import Words

Sampler = Callable[[], dict[int, kernel.CpuTimes]]

# The constants of the formula; docs/budget.md says why each has its value.
RUNTIME_MIB = 64.0
WORKER_MIB = 256.0
RESERVE_MIB = RUNTIME_MIB + WORKER_MIB
MEMORY_FRACTION = 0.5
LEAST_MEMORY_FRACTION = 0.125
DISK_RESERVE_MIB = 64.0
COPIES_ON_DISK = 4
LARGEST_ARTEFACT_MIB = 2048.0
CPU_FRACTION = 0.7
MIN_AGREEMENT = 0.98
_LEAST_MIB = 1.0
_LEAST_SHARE = 0.01


class Headroom(Words):
    """What one moment leaves over. `memory_bound_by` names the file whose limit is nearest."""

    memory_available_mib: float
    memory_bound_by: str
    swap_free_mib: float
    idle_cpu_share: float
    disk_free_mib: float
    disk_path: str


@dataclass(frozen=True)
class Allowance:
    """The default Budget, and one line for each of its terms that says how it came about."""

    budget: Budget
    lines: tuple[str, ...]


def read(
    root: Path = profile.ROOT, *, state_dir: Path, idle_cpu_share: float, quota_cores: float | None
) -> Headroom:
    """Read what is free now. `idle_cpu_share` comes from `idle_over` or two samples of one's own.

    The share is of the cores that this process may use, which a quota narrows further.
    """
    available, bound_by = memory_available(root)
    meminfo = kernel.meminfo_bytes(kernel.read_text(root / "proc/meminfo"))
    where = nearest_existing(state_dir)
    allowed = len(profile.allowed_cpus(root))
    usable = allowed if quota_cores is None else min(quota_cores, allowed)
    return Headroom(
        memory_available_mib=round(available / 2**20, 1),
        memory_bound_by=bound_by,
        swap_free_mib=round(meminfo.get("SwapFree", 0) / 2**20, 1),
        idle_cpu_share=round(min(1.0, idle_cpu_share * allowed / usable), 4),
        disk_free_mib=round(psutil.disk_usage(str(where)).free / 2**20, 1),
        disk_path=str(where),
    )


def memory_available(root: Path = profile.ROOT) -> tuple[int, str]:
    """Bytes that can be taken without swapping, and what bounds them: the tightest of all."""
    return memory.available(root)


def sample(root: Path = profile.ROOT) -> dict[int, kernel.CpuTimes]:
    """One sample of the CPUs' times; two of them make an idle share."""
    return kernel.cpu_times(kernel.read_text(root / "proc/stat"))


def idle_over(
    seconds: float, *, cpus: frozenset[int], sampler: Sampler = sample,
    sleep: Callable[[float], None] = time.sleep,
) -> float:  # fmt: skip
    """The share in [0, 1] that `cpus` are idle over the next `seconds`; it blocks so long."""
    before = sampler()
    sleep(seconds)
    return kernel.idle_share(before, sampler(), cpus=cpus)


def nearest_existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists: its disk is the one meant."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


def default_budget(
    headroom: Headroom, device: profile.Profile, *, request_rate_hz: float | None = None
) -> Budget:
    """What a model may cost here when nobody said; `allowance` gives the same with its reasons."""
    return allowance(headroom, device, request_rate_hz=request_rate_hz).budget


def allowance(
    headroom: Headroom, device: profile.Profile, *, request_rate_hz: float | None = None
) -> Allowance:
    """Apply the formula of docs/budget.md. `request_rate_hz`: requests a second to keep up with."""
    memory, memory_line = _memory(headroom)
    size, size_line = _size(headroom)
    threads = max(1, device.cores // 2)
    timing: dict[str, float] = {}
    lines = [
        memory_line,
        size_line,
        f"threads {threads}: half of {device.cores} usable cores, at least 1",
        f"min_agreement {MIN_AGREEMENT}: the same answer in 98 of 100 cases",
    ]
    if request_rate_hz is None:
        lines.append("latency and CPU share: left open, because no request rate is given")
    else:
        share = max(_LEAST_SHARE, round(CPU_FRACTION * headroom.idle_cpu_share, 4))
        latency = 1000.0 / request_rate_hz
        timing = {
            "request_rate_hz": request_rate_hz, "cpu_share": share, "latency_p95_ms": latency
        }  # fmt: skip
        lines += [
            f"cpu_share {share:g}: {CPU_FRACTION:g} of the idle {headroom.idle_cpu_share:.0%}",
            f"latency_p95_ms {latency:g}: done before the next of {request_rate_hz:g} a second",
        ]
    budget = Budget(
        peak_memory_mib=memory, size_mib=size, threads=threads,
        min_agreement=MIN_AGREEMENT, **timing,
    )  # fmt: skip
    return Allowance(budget, tuple(lines))


def _memory(headroom: Headroom) -> tuple[float, str]:
    free = headroom.memory_available_mib
    bounds = {
        "so that two versions fit beside one another while they are swapped": free
        * MEMORY_FRACTION,
        f"{free:g} MiB less {RESERVE_MIB:g} MiB for the runtime and the worker": free - RESERVE_MIB,
    }
    reason, value = min(bounds.items(), key=lambda item: item[1])
    floor = max(_LEAST_MIB, free * LEAST_MEMORY_FRACTION)
    if value < floor:
        value, reason = floor, "an eighth, because the reserve alone would leave less"
    value = round(value, 1)
    of = f"of {free:g} MiB available by {headroom.memory_bound_by}"
    return value, f"peak_memory_mib {value:g} {of}: {reason}"


def _size(headroom: Headroom) -> tuple[float, str]:
    free = headroom.disk_free_mib
    value = min(LARGEST_ARTEFACT_MIB, (free - DISK_RESERVE_MIB) / COPIES_ON_DISK)
    value = round(max(_LEAST_MIB, value), 1)
    return value, (
        f"size_mib {value:g}: 1/{COPIES_ON_DISK} of {free:g} MiB free on {headroom.disk_path} "
        f"less {DISK_RESERVE_MIB:g} MiB, at most {LARGEST_ARTEFACT_MIB:g}"
    )


def process_rss_mib() -> float:
    """Resident memory of this process in MiB."""
    return float(psutil.Process().memory_info().rss) / 2**20
