"""What this process takes from the device now."""

import os
import time

import psutil

from agent.device import memory

PID = os.getpid()
_SELF = psutil.Process(PID)


def rss_mib() -> float:
    """Resident memory of this process in MiB."""
    return float(_SELF.memory_info().rss) / 2**20


def cpu_s() -> float:
    """CPU seconds of all threads of this process since its start, user and system."""
    return time.process_time()  # psutil's has the kernel's ticks of 10 ms


def available_mib() -> float:
    """Memory that can be taken now without swapping, in MiB."""
    return memory.available()[0] / 2**20
