"""How much memory training needs, and how much there is for it."""

import contextlib
import resource
from pathlib import Path

ROOT = Path("/")
BASE_MIB = 260.0
"""What torch and its first steps take, whatever is trained (measured)."""
TIMES_MODEL = 10.0
"""Of the model's own size: weights, gradients, two moments of Adam, the best so far, sessions."""


def needed_mib(model_mib: float, *, work_memory_mib: float) -> float:
    """What a training takes: the model several times, and its activations within their bound."""
    return BASE_MIB + TIMES_MODEL * model_mib + work_memory_mib


def available_mib(root: Path = ROOT) -> float:
    """What this process may still take: by the kernel, its control group and its own ceiling."""
    return min((*_of_kernel(root), *_of_groups(root), *_of_ceiling(root)), default=float("inf"))


def lacking(model_mib: float, *, work_memory_mib: float, root: Path = ROOT) -> str | None:
    """Say why there is too little memory to train a model of this size; None where it will do."""
    need = needed_mib(model_mib, work_memory_mib=work_memory_mib)
    free = available_mib(root)
    if free >= need:
        return None
    return f"cannot recover: it needs about {need:.0f} MiB of memory, {free:.0f} MiB are available"


def _of_kernel(root: Path) -> list[float]:
    return [kib / 1024 for kib in _fields(root / "proc/meminfo", "MemAvailable")]


def _of_ceiling(root: Path) -> list[float]:
    """RLIMIT_DATA less what is taken of it (proc(5), VmData)."""
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY:
        return []
    return [most / 2**20 - kib / 1024 for kib in _fields(root / "proc/self/status", "VmData")]


def _of_groups(root: Path) -> list[float]:
    """Limits of version 2 from this process's group up: what is free below each."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        line = (root / "proc/self/cgroup").read_text().splitlines()[-1]
        folder = root / "sys/fs/cgroup" / line.partition("::")[2].strip("/")
        for group in (folder, *folder.parents):
            if not (group / "memory.max").exists():
                continue
            most, used = ((group / name).read_text().strip() for name in
                          ("memory.max", "memory.current"))  # fmt: skip
            if most != "max":
                found.append((int(most) - int(used)) / 2**20)
    return found


def _fields(path: Path, name: str) -> list[float]:
    """The figure behind `NAME:` in a file of proc(5), if it is there."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return [float(line.split()[1])]
    return []
