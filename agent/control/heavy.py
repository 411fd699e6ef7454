"""One measurement at a time: two at once would spoil both figures."""

import asyncio


class Heavy:
    """Held while something is measured or compressed; work that can wait asks who else does."""

    def __init__(self) -> None:
        """Begin with nobody at work."""
        self._lock = asyncio.Lock()
        self._waiting = 0

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return self._waiting > 0

    @property
    def held(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    async def take(self) -> None:
        """Wait until nobody else measures."""
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1

    def give(self) -> None:
        """Let the next one measure."""
        self._lock.release()

    async def __aenter__(self) -> None:
        await self.take()

    async def __aexit__(self, *_: object) -> None:
        self.give()
