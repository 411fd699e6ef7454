"""What the kernel tells as text - cpuinfo, meminfo, stat, cpu lists - and how it is read (pure).

Every reader takes the text and forgives what it does not know: boards, kernels and container
runtimes leave lines out. Formats: proc(5), and Documentation/filesystems/proc.rst in Linux.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

INT8_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8",
    "neon", "asimd", "asimddp", "i8mm", "sve", "sve2", "svei8mm",
)  # fmt: skip
"""The CPU flags that decide how int8 is best computed, in the order in which they are named."""

_MEMINFO_LINE = re.compile(r"^([A-Za-z0-9_()]+):\s+(\d+)(?: kB)?\s*$", re.MULTILINE)
_CPU_LINE = re.compile(r"^cpu(\d+)((?: \d+)+)", re.MULTILINE)
_CPU_FLAGS_KEYS = {"flags", "Features"}
_IDLE, _IOWAIT, _GUEST = 3, 4, 8


@dataclass(frozen=True)
class CpuTimes:
    """Seconds that one CPU has been idle, and all its seconds, since the start (any unit)."""

    idle: int
    total: int


def read_text(path: Path) -> str:
    """The text of a kernel file without NULs; nothing where it is absent or refused."""
    try:
        return path.read_bytes().replace(b"\0", b"").decode("utf-8", "replace")
    except OSError:
        return ""


def cpu_blocks(cpuinfo: str) -> list[dict[str, str]]:
    """/proc/cpuinfo as one dictionary per block; blocks are parted by empty lines."""
    blocks = []
    for part in re.split(r"\n\s*\n", cpuinfo):
        pairs = (line.partition(":") for line in part.splitlines())
        block = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if block:
            blocks.append(block)
    return blocks


def isa(blocks: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """The flags of INT8_FLAGS that every CPU has: a thread may run on any of them."""
    sets = [set(block[key].split()) for block in blocks for key in block if key in _CPU_FLAGS_KEYS]
    common = set.intersection(*sets) if sets else set()
    return tuple(flag for flag in INT8_FLAGS if flag in common)


def meminfo_bytes(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes, by its own names."""
    return {name: int(number) * 1024 for name, number in _MEMINFO_LINE.findall(text)}


def available_bytes(meminfo: Mapping[str, int]) -> int:
    """MemAvailable, or what Linux before 3.14 offers in its place: free and droppable pages."""
    if "MemAvailable" in meminfo:
        return meminfo["MemAvailable"]
    cache = meminfo.get("Cached", 0) + meminfo.get("Buffers", 0) - meminfo.get("Shmem", 0)
    return meminfo.get("MemFree", 0) + max(0, cache)


def cpu_list(text: str) -> frozenset[int]:
    """A list as in `Cpus_allowed_list: 0-2,4`; what is no number or range is passed over."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.strip().partition("-")
        if first.isascii() and first.isdigit() and (not last or last.isdigit()):
            cpus |= set(range(int(first), min(int(last or first), int(first) + 4096) + 1))
    return frozenset(cpus)


def cpu_times(stat: str) -> dict[int, CpuTimes]:
    """/proc/stat by CPU number. Waiting for the disk counts as idle; stolen time does not."""
    times = {}
    for number, fields in _CPU_LINE.findall(stat):
        ticks = [int(field) for field in fields.split()]
        if len(ticks) > _IDLE:
            # Guest time is counted again inside user time (proc(5)).
            times[int(number)] = CpuTimes(
                idle=ticks[_IDLE] + sum(ticks[_IOWAIT : _IOWAIT + 1]), total=sum(ticks[:_GUEST])
            )
    return times


def idle_share(
    before: Mapping[int, CpuTimes], after: Mapping[int, CpuTimes], *, cpus: frozenset[int]
) -> float:
    """The share in [0, 1] that `cpus` were idle between two samples (0.0: nothing was seen)."""
    seen = [cpu for cpu in cpus if cpu in before and cpu in after]
    total = sum(after[cpu].total - before[cpu].total for cpu in seen)
    idle = sum(after[cpu].idle - before[cpu].idle for cpu in seen)
    # iowait may run backwards (proc(5)), and a CPU that was off and on again starts anew.
    return min(1.0, max(0.0, idle / total)) if total > 0 else 0.0
