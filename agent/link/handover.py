"""From the client library's network thread to the event loop, and acknowledgements back in order.

What arrives faster than the loop takes it is not piled up: the network thread waits, so the bytes
stay in the socket and at the broker. Whoever floods a topic costs time, and no memory.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

MOST_WAITING = 8
"""Messages between the network thread and the loop; each may have 256 KiB."""
_PATIENCE_S = 10.0
"""Shorter than any keepalive's grace: a thread that waits sends no pings."""

log = logging.getLogger(__name__)


class HandOver:
    """Calls made in one thread, carried out on one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = threading.BoundedSemaphore(MOST_WAITING)

    def attach(self) -> None:
        """Carry out on the loop that runs now."""
        self._loop = asyncio.get_running_loop()

    def call(self, call: Callable[[], None]) -> None:
        """Carry out a small thing soon; from any thread, never waits."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call)

    def message(self, call: Callable[[], None]) -> None:
        """Carry out what holds a message; waits while eight others do."""
        if not self._room.acquire(timeout=_PATIENCE_S):
            # Not acknowledged, so the broker sends it again on the next connection.
            log.error("the event loop has not turned for %g s: a message is left", _PATIENCE_S)
            return

        def carry_out() -> None:
            self._room.release()
            call()

        self.call(carry_out)


@dataclass(slots=True)
class _Due:
    packet_id: int
    done: bool = False


class Acknowledgements:
    """PUBACKs in the order in which the messages came (MQTT 5, 4.6.0-2); on the event loop."""

    def __init__(self, send: Callable[[int], None]) -> None:
        """Send each with `send(packet id)`."""
        self._send = send
        self._due: deque[_Due] = deque()

    def expect(self, packet_id: int) -> Callable[[], None]:
        """A message came; return what is called once it needs no sending again."""
        due = _Due(packet_id)
        self._due.append(due)

        def acknowledge() -> None:
            due.done = True
            while self._due and self._due[0].done:
                self._send(self._due.popleft().packet_id)

        return acknowledge

    def forget(self) -> None:
        """The connection is gone: what was not acknowledged comes again on the next one."""
        self._due.clear()
