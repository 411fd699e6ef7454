"""How much memory can be taken now without swapping: by the kernel, and by every control group."""

from pathlib import Path

from agent.device import cgroups, kernel

ROOT = Path("/")


def available(root: Path = ROOT) -> tuple[int, str]:
    """Bytes that can be taken without swapping, and what bounds them: the tightest of all."""
    meminfo = kernel.meminfo_bytes(kernel.read_text(root / "proc/meminfo"))
    bounds = [(kernel.available_bytes(meminfo), "/proc/meminfo MemAvailable")] if meminfo else []
    bounds += [(limit.free_bytes, limit.where) for limit in cgroups.memory_limits(root)]
    return min(bounds, default=(0, "unknown"))
