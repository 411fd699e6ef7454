"""Where requests for a model wait while another variant takes its place."""

import asyncio

from agent.serving.faults import Busy, Expired


class Gate:
    """Holds requests, up to a number, until it is opened."""

    def __init__(self, name: str, *, most_waiting: int) -> None:
        self._name = name
        self._most_waiting = most_waiting
        self._waiting = 0
        self._open = asyncio.Event()

    def open(self) -> None:
        """Let everybody through."""
        self._open.set()

    async def passed(self, *, within_s: float | None) -> None:
        """Wait until it is open.

        Raises:
            Busy: as many as may wait are waiting.
            Expired: not open `within_s`.
        """
        if self._waiting >= self._most_waiting:
            raise Busy(
                f"cannot run {self._name}: it is being replaced, and {self._waiting} requests wait",
                retry_after_s=1.0,
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(within_s):
                await self._open.wait()
        except TimeoutError:
            raise Expired(f"cannot run {self._name}: not replaced within {within_s:g} s") from None
        finally:
            self._waiting -= 1
