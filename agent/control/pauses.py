"""How long to wait before something that is not there is tried again."""

import asyncio
import random

MOST_S = 60.0


class Pauses:
    """Pauses that double, with full jitter: a fleet that waits for one broker or one power line
    must not come back in step."""

    def __init__(self, least_s: float) -> None:
        """Begin with at most `least_s` seconds."""
        self._bound_s = least_s

    async def rest(self) -> None:
        """Wait for a random part of the bound, and double it, up to a minute."""
        await asyncio.sleep(random.uniform(0, self._bound_s))  # noqa: S311 - not for secrets
        self._bound_s = min(MOST_S, self._bound_s * 2)
