"""The time that this process had for its work: it stands still while the parent has it stopped.

A parent may stop the worker (SIGSTOP) while others need the device. All that ends by the clock
asks this one, or a job would be over when it comes back. The parent adds up the time in a page
that both map, before it lets the worker go on (SIGCONT): so there is no moment of a wrong time.
"""

import ctypes
import mmap
import os
import signal
import struct
import time

_PR_SET_PDEATHSIG = 1
BYTES = mmap.PAGESIZE
_SECONDS = struct.Struct("=d")
_page: mmap.mmap | None = None


def follow(descriptor: int) -> None:
    """From now on the time stopped is what the page behind `descriptor` says."""
    global _page  # noqa: PLW0603 - one clock for one process, as time's own
    _page = mmap.mmap(descriptor, BYTES, prot=mmap.PROT_READ)


def die_with_parent() -> None:
    """Have the kernel end this process with its parent (prctl(2)): one that is stopped cannot see
    that its input has ended, and would hold its memory for ever."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def now_s() -> float:
    """Seconds of a clock that only goes forward, without those in which we were stopped."""
    return time.monotonic() - (_SECONDS.unpack_from(_page)[0] if _page else 0.0)


class Stopped:
    """The parent's side: the page, and the time in it."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("trimtab-stopped")
        os.ftruncate(self.descriptor, BYTES)
        self._page = mmap.mmap(self.descriptor, BYTES)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Tell of a stop that ends now."""
        self.seconds += seconds
        _SECONDS.pack_into(self._page, 0, self.seconds)

    def close(self) -> None:
        """Give the page back; the child's mapping stays its own."""
        self._page.close()
        os.close(self.descriptor)
