"""The limits that control groups put on this process, of version 1 and 2, nested as they come.

A limit anywhere on the way up to the root binds, so each of them is read; the caller takes the
tightest. Formats: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ in Linux, cgroups(7)
and proc(5) for /proc/self/cgroup and mountinfo.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.device import kernel

# Version 1 writes "no limit" as the largest page-aligned number.
_NO_LIMIT_BYTES = 2**60
_STAT_LINE = re.compile(r"^([a-z_]+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class MemoryLimit:
    """One limit: the file that sets it, and what is charged to it beyond droppable cache."""

    where: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What may still be taken before this limit is felt."""
        return max(0, self.limit_bytes - self.used_bytes)


@dataclass(frozen=True)
class CpuLimit:
    """One limit: the file that sets it, and its quota in cores (0.5: half the time of one)."""

    where: str
    cores: float


@dataclass(frozen=True)
class Membership:
    """Where a process stands in one hierarchy. Version 2 names no controllers."""

    version: int
    controllers: frozenset[str]
    path: PurePosixPath


@dataclass(frozen=True)
class Mount:
    """Where a hierarchy, or the part of it under `top`, can be read."""

    version: int
    options: frozenset[str]
    top: PurePosixPath
    point: PurePosixPath


def memberships(text: str) -> tuple[Membership, ...]:
    """Read /proc/self/cgroup: lines of `ID:CONTROLLERS:PATH`."""
    found = []
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            names = frozenset(filter(None, parts[1].split(",")))
            found.append(Membership(1 if names else 2, names, PurePosixPath(parts[2])))
    return tuple(found)


def mounts(mountinfo: str) -> tuple[Mount, ...]:
    """Read the control group mounts from /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if dash and len(fields) >= 5 and tail and tail[0] in {"cgroup", "cgroup2"}:
            options = frozenset(tail[-1].split(","))
            top, point = PurePosixPath(_unescape(fields[3])), PurePosixPath(_unescape(fields[4]))
            found.append(Mount(1 if tail[0] == "cgroup" else 2, options, top, point))
    return tuple(found)


def memory_limits(root: Path = Path("/")) -> tuple[MemoryLimit, ...]:
    """Every memory limit that binds this process, innermost first."""
    limits = []
    for version, folder in _levels(root, "memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        usage = "memory.current" if version == 2 else "memory.usage_in_bytes"
        for name in names:
            limit = _number(folder / name)
            if limit is not None and limit < _NO_LIMIT_BYTES:
                used = max(0, (_number(folder / usage) or 0) - _inactive_file(folder))
                limits.append(MemoryLimit(_seen(root, folder / name), limit, used))
    return tuple(limits)


def cpu_limits(root: Path = Path("/")) -> tuple[CpuLimit, ...]:
    """Every CPU quota that binds this process, innermost first."""
    limits = []
    for version, folder in _levels(root, "cpu"):
        name = "cpu.max" if version == 2 else "cpu.cfs_quota_us"
        words = kernel.read_text(folder / name).split()
        if version == 1:
            words += kernel.read_text(folder / "cpu.cfs_period_us").split()
        if len(words) == 2 and all(word.isascii() and word.isdigit() for word in words):
            quota_us, period_us = int(words[0]), int(words[1])
            if quota_us > 0 and period_us > 0:
                limits.append(CpuLimit(_seen(root, folder / name), quota_us / period_us))
    return tuple(limits)


def _levels(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """The folders of `controller` from this process's group up to the top that can be seen."""
    groups = memberships(kernel.read_text(root / "proc/self/cgroup"))
    table = mounts(kernel.read_text(root / "proc/self/mountinfo"))
    # Where version 1 holds the controller, version 2 does not (hybrid hierarchies).
    first = next((group for group in groups if controller in group.controllers), None)
    group = first or next((group for group in groups if group.version == 2), None)
    if group is None:
        return
    for mount in table:
        if mount.version != group.version:
            continue
        if group.version == 1 and controller not in mount.options:
            continue
        below = _below(group.path, mount.top)
        top = root / mount.point.relative_to("/")
        for level in (below, *below.parents):
            yield group.version, top / level
        return


def _below(path: PurePosixPath, top: PurePosixPath) -> PurePosixPath:
    """`path` relative to the mount's top; in a container that sees only its own group: nothing."""
    if ".." in path.parts or not path.is_relative_to(top):
        return PurePosixPath(".")
    return path.relative_to(top)


def _inactive_file(folder: Path) -> int:
    """Bytes of file cache that go first when memory is short. v1 sums children under total_*."""
    text = kernel.read_text(folder / "memory.stat")
    stat = {name: int(number) for name, number in _STAT_LINE.findall(text)}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))


def _number(path: Path) -> int | None:
    text = kernel.read_text(path).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _seen(root: Path, path: Path) -> str:
    return "/" + str(path.relative_to(root))


def _unescape(field: str) -> str:
    """Undo the octal escapes of mountinfo (`\\040` is a space)."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
