"""How fast chunks may be asked for where the bandwidth is capped: a bucket of bytes."""

import asyncio
import time
from collections.abc import Callable


class Pace:
    """At most `bytes_per_s` in the long run, in bursts of a second or one chunk; shared by pulls.

    The broker sends what was asked for as fast as the line is, so the cap is on the asking: a
    chunk is asked for when what was asked before is paid for.
    """

    def __init__(self, bytes_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with a bucket of one second; `clock` gives seconds."""
        self._rate, self._clock = bytes_per_s, clock
        self._bucket_bytes, self._at_s = bytes_per_s, clock()

    def at_once(self, size: int) -> int:
        """How many things of `size` bytes one second pays for; at least one."""
        return max(1, int(self._rate / size))

    def spend(self, count: int) -> None:
        """Take bytes out, or give back (below zero) what was taken and not used."""
        self._fill()
        self._bucket_bytes = min(self._rate, self._bucket_bytes - count)

    def rest_s(self) -> float:
        """Seconds until the bucket is not in debt any more."""
        self._fill()
        return max(0.0, -self._bucket_bytes / self._rate)

    async def wait_for(self, count: int) -> None:
        """Wait until the debt is paid, then take `count` bytes."""
        await asyncio.sleep(self.rest_s())
        self.spend(count)

    def _fill(self) -> None:
        now_s = self._clock()
        earned = (now_s - self._at_s) * self._rate
        self._bucket_bytes, self._at_s = min(self._rate, self._bucket_bytes + earned), now_s
