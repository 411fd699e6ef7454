"""Signs that the device is short of something; so far, processes that the kernel killed."""

from pathlib import Path

from agent.device import kernel

ROOT = Path("/")


def oom_kills(root: Path = ROOT) -> int:
    """Processes that the kernel killed for want of memory since boot (proc(5), vmstat).

    0 where the kernel does not count them (before Linux 4.13).
    """
    for line in kernel.read_text(root / "proc/vmstat").splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.strip().isdigit():
            return int(count)
    return 0
