"""A question asked by rote of a model with a thread: to the thread, to the client, to the loop.

One object does all of it: behind a run of milliseconds nothing of this is in a cache, and each
function, closure or object more costs a microsecond or two (docs/adr/0018).
"""

import asyncio
import threading
from time import perf_counter_ns

from agent.serving.api import Came
from agent.serving.outlet import Outlet
from agent.serving.runs import Prepared, Ran
from agent.serving.runtime import CannotRun
from agent.serving.variant import Variant


class Turn:
    """One question on its way; it is a task of the model's worker, and pending meanwhile."""

    __slots__ = (
        "_at", "_began_ns", "_call", "_came", "_data", "_into", "_loop", "_once", "_outlet",
        "_prepared", "_ran", "_rest", "_stop", "_told", "_variant",
    )  # fmt: skip

    def __init__(
        self,
        variant: Variant,
        prepared: Prepared,
        asked: tuple[bytes, bytes, int],
        outlet: Outlet | None,
        came: Came,
    ) -> None:
        """`asked`: what the answer begins with, the request, and where in it the inputs begin."""
        self._variant = variant
        self._prepared = prepared
        # Held here: what is prepared may be let go while this waits.
        self._call, self._into = prepared.call, prepared.into
        self._told, self._data, self._at = asked
        self._outlet = outlet
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._once = threading.Lock()
        self._stop = variant.inside.stop()
        self._ran: Ran | None = None
        self._rest: bytes | None = None
        self._began_ns = perf_counter_ns()
        variant.inside.enter(self)

    def cancel(self) -> None:
        """Take it out of the queue, or stop its run: nobody waits for it."""
        if self._once.acquire(blocking=False):
            self._variant.inside.leave()
        else:
            self._stop.now()

    def run(self) -> None:
        """Run the model and send the answer, unless nobody waits any more; on its thread."""
        if not self._once.acquire(blocking=False):
            return
        call, into = self._call, self._into
        assert call is not None
        try:
            if into is not None:
                into[:] = self._data[self._at :]
            self._ran = ran = self._variant.run(call, self._stop)
            answer = self._told
            if into is not None:  # else the outputs lie in the client's memory
                answer = b"".join((answer, *[array.tobytes() for array in ran.arrays]))
            self._rest = answer if self._outlet is None else answer[self._outlet.say(answer) :]
        except CannotRun:
            if not self._stop.asked:  # an output's shape hangs on values: from now on it is copied
                self._prepared.let_go()
        except Exception:  # asked the usual way, it says what is wrong
            self._rest = None
        try:
            self._loop.call_soon_threadsafe(self._over)
        except RuntimeError:  # the loop is closed: the server has ended
            return

    def _over(self) -> None:
        """Back on the loop."""
        variant = self._variant
        variant.inside.leave()
        variant.inside.spare(self._stop)
        if self._ran is not None and self._rest is not None:
            _, from_ns, to_ns = self._ran
            now_ns = perf_counter_ns()
            times = (0, from_ns - self._began_ns, to_ns - from_ns, now_ns - to_ns)
            variant.meter.succeeded(times, at_ns=now_ns)
        self._came(self._rest, self._data)
