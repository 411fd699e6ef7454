"""Waiting for a condition with a deadline, instead of sleeping to be right."""

import asyncio
from collections.abc import Callable

DEADLINE_S = 20.0


async def until(
    condition: Callable[[], object], *, what: str = "", within_s: float = DEADLINE_S
) -> None:
    """Return once `condition()` is true; fail the test after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline_s, f"waited {within_s:g} s for {what or condition}"
        await asyncio.sleep(0.01)
