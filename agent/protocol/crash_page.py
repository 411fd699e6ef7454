"""The page that agent and server share, so that a crash has a name (no I/O).

Lanes of 16 bits. A variant owns a lane and keeps its index in it while it loads or runs; 0 is
idle. What stands there after the server's death was being executed when it died.
"""

from mmap import mmap

BYTES = 4096
LANES = BYTES // 2


class CrashPage:
    """Lanes over a writable shared mapping of 4096 bytes."""

    def __init__(self, mapping: mmap) -> None:
        self._lanes = memoryview(mapping).cast("H")

    def __setitem__(self, lane: int, index: int) -> None:
        self._lanes[lane] = index

    def lane(self, lane: int) -> memoryview:
        """One lane as a view of its own, to be written without a call."""
        return self._lanes[lane : lane + 1]

    def busy(self) -> tuple[int, ...]:
        """Every index that stands in a lane, once, in ascending order."""
        return tuple(sorted(set(self._lanes) - {0}))

    def clear(self) -> None:
        """Make every lane idle."""
        for lane in range(LANES):
            self._lanes[lane] = 0
