"""Work that makes way: its child is stopped while others need the device, and then goes on.

SIGSTOP takes effect at once wherever the child is, deep in a product of matrices too; a word in
its stream would be read when that is done. Its clock stands still meanwhile (compression.working).
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from agent.host import talking
from compression.working import Stopped

_Result = TypeVar("_Result")

LONG_S = 15 * 60.0
"""A child that was stopped for so long is ended: its memory is needed more than its place."""


class Outlasted(Exception):
    """The child is gone by a break; its work goes on in another one, from what is on the disk."""


class Breaks:
    """Whether the work may go on: one side watches the device and says so, the other obeys.

    `ours` are the processes of the work: the time that they take, nobody else does.
    """

    def __init__(self) -> None:
        """Begin with a break."""
        self._free, self._disturbed = asyncio.Event(), asyncio.Event()
        self._disturbed.set()
        self.ours: set[int] = set()
        self._began_s = time.monotonic()

    def lasted_s(self) -> float:
        """How long the break of now has lasted; 0 where there is none."""
        return 0.0 if self.free else time.monotonic() - self._began_s

    @property
    def free(self) -> bool:
        """Whether the work may go on now."""
        return self._free.is_set()

    def end(self) -> None:
        """Let the work go on."""
        self._disturbed.clear()
        self._free.set()

    def begin(self) -> None:
        """Have the work stopped."""
        self._free.clear()
        self._disturbed.set()
        self._began_s = time.monotonic()

    async def ended(self) -> None:
        """Wait until the work may go on."""
        await self._free.wait()

    async def begun(self) -> None:
        """Wait until the work has to stop."""
        await self._disturbed.wait()

    @contextlib.contextmanager
    def counting(self, child: talking.Child) -> Iterator[None]:
        """Count a child among the work's own."""
        self.ours.add(child.process.pid)
        try:
            yield
        finally:
            self.ours.discard(child.process.pid)


async def obeyed(
    breaks: Breaks, child: talking.Child, stopped: Stopped, deadline: asyncio.Timeout
) -> None:
    """Stop the child in each break and let it go on behind it; its deadline waits as well.

    Returns where a break lasts long: then the child is to be ended.
    """
    loop = asyncio.get_running_loop()
    while True:
        await breaks.begun()
        began_s, when = time.monotonic(), deadline.when()
        deadline.reschedule(None)
        left_s = None if when is None else when - loop.time()
        _signal(child, signal.SIGSTOP)
        try:
            async with asyncio.timeout(LONG_S):
                await breaks.ended()
        except TimeoutError:
            return
        stopped.add(time.monotonic() - began_s)
        if left_s is not None:
            deadline.reschedule(loop.time() + left_s)
        _signal(child, signal.SIGCONT)


async def unless(first: Coroutine[Any, Any, None], work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do the work, unless `first` comes to its end first.

    Raises:
        Outlasted: it did.
    """
    working, ending = asyncio.ensure_future(work), asyncio.ensure_future(first)
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        ending.result()
        raise Outlasted
    finally:
        working.cancel()
        ending.cancel()
        await asyncio.wait({working, ending})


def _signal(child: talking.Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # its death shows elsewhere
        os.killpg(child.process.pid, number)
