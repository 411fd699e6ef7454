"""What this process takes from the device now."""

import os
import time
from pathlib import Path

PID = os.getpid()
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def rss_mib() -> float:
    """Resident memory of this process (proc(5), statm: the second field, in pages)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def cpu_s() -> float:
    """CPU time of all threads of this process since its start, user and system."""
    return time.process_time()
