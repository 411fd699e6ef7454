"""Attempt after attempt to stay connected: exponential, capped waits with full jitter."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.config import Broker

STEADY_S = 10.0
"""A connection that lasted this long clears the count of failures."""
FLAPS_TO_ALARM = 4

Uniform = Callable[[float, float], float]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How one attempt ended: why, how long it was up (None: never), whether we were evicted, and
    whether there was a connection at all."""

    why: str
    lasted_s: float | None = None
    taken_over: bool = False
    reached: bool = True


def next_failures(failures: int, ended: Ended) -> int:
    """Count one more failure in a row; a connection that was steady clears the count first."""
    steady = ended.lasted_s is not None and ended.lasted_s >= STEADY_S
    return 1 if steady else failures + 1


def wait_s(failures: int, ended: Ended, *, broker: Broker, uniform: Uniform) -> float:
    """Seconds before the next attempt, after `failures` failures in a row.

    Full jitter, so that a fleet does not return to its broker all at once: uniform between 0
    and least * 2**failures, capped (M. Brooker, "Exponential Backoff And Jitter", AWS 2015).
    After a takeover at least half of the cap: two devices with one id would otherwise throw
    one another out without end.
    """
    if ended.taken_over:
        return uniform(broker.reconnect_most_s / 2, broker.reconnect_most_s)
    ceiling = broker.reconnect_least_s * 2.0 ** min(failures, 32)
    return uniform(0.0, min(broker.reconnect_most_s, ceiling))


async def keep_trying(
    attempt: Callable[[], Awaitable[Ended]],
    *,
    broker: Broker,
    stopping: asyncio.Event,
    uniform: Uniform,
) -> None:
    """Run `attempt` (one connection from start to end) again and again until `stopping`.

    One line is logged per attempt; as the waits grow, so do the intervals between the lines.
    """
    where = f"{broker.host}:{broker.port}"
    failures = 0
    while not stopping.is_set():
        ended = await attempt()
        if stopping.is_set():
            return
        failures = next_failures(failures, ended)
        pause_s = wait_s(failures, ended, broker=broker, uniform=uniform)
        if ended.taken_over:
            log.error("ALARM: another client connected to %s with our client id", where)
        elif ended.lasted_s is not None and failures >= FLAPS_TO_ALARM:
            log.error("connections to %s do not last: is our client id used twice?", where)
        log.warning("broker %s: %s; trying again in %.1f s", where, ended.why, pause_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await stopping.wait()
