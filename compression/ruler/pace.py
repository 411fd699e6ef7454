"""How much of the time a trial may work: in bursts, with pauses for whatever else runs here."""

import time
from collections.abc import Callable

SHARE = 0.5
"""The most of the time that is worked. On one core that is what a device that serves keeps."""
BURST_S = 0.005
"""Work is not interrupted for less: a pause too short to be slept would only be imprecise."""


class Pace:
    """Sleeps often enough that at most `SHARE` of the time is worked, counted from the start."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self.longest_burst_s = 0.0

    def rest(self, *, at_least_s: float = BURST_S) -> None:
        """Pause, if at least `at_least_s` seconds were worked since the last pause."""
        worked_s = self._clock() - self._began
        if worked_s < at_least_s:
            return
        self.longest_burst_s = max(self.longest_burst_s, worked_s)
        self._sleep(worked_s * (1 / SHARE - 1))
        self._began = self._clock()

    def describe(self) -> str:
        """Say how the work was spread."""
        longest_ms = self.longest_burst_s * 1000
        return f"at most {SHARE:.0%} of the time, in bursts of up to {longest_ms:.3g} ms"
