"""One loaded model as it serves: on which thread it runs, who is inside, how long it takes."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from agent.protocol.crash_page import CrashPage
from agent.protocol.private import LoadRequest
from agent.protocol.tensors import Array
from agent.serving.faults import Busy, Expired
from agent.serving.meter import Key, Meter
from agent.serving.pace import Pace
from agent.serving.runtime import Model, Stop

MOST_WAITING = 256
"""Requests that may wait for one model: each of them holds its inputs."""


@dataclass
class SharedThread:
    """One thread for all models while it is set, so that one thing runs at a time."""

    executor: ThreadPoolExecutor | None = None


class Place(NamedTuple):
    """Where a variant executes: its lane of the crash page, and perhaps on a shared thread."""

    page: CrashPage
    lane: int
    thread: SharedThread


class Ran(NamedTuple):
    """What a run gave, and when it was, by time.perf_counter_ns()."""

    arrays: list[Array]
    began_ns: int
    ended_ns: int


class Variant:
    """A model with one thread of its own, its meter and its lane of the crash page.

    A thread of its own, because a slow model must not keep a quick one waiting; only one,
    because the peak memory that was measured is that of one run at a time.
    """

    def __init__(
        self,
        request: LoadRequest,
        model: Model,
        *,
        meter: Meter,
        place: Place,
        pace: Pace,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.request = request
        self.model = model
        self.meter = meter
        self._place = place
        self._pace = pace
        self._most_waiting = most_waiting
        self._own: ThreadPoolExecutor | None = None
        self._inside = 0
        self._retired = False
        self._empty = asyncio.Event()

    @property
    def key(self) -> Key:
        """Under which its counters are kept."""
        return Key(self.request.name, self.request.version, self.request.sha256)

    def infer(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], *, within_s: float | None = None
    ) -> Ran | Awaitable[Ran]:
        """Run once, now where it is quick: the arrays of `outputs` in their order.

        An awaitable that is cancelled, or not done `within_s`, takes its run out of the queue, or
        stops it.

        Raises:
            BadInput: the inputs do not fit the model.
            Busy: as many requests as may wait are waiting.
            Expired: not done `within_s`.
            CannotRun: it failed while it ran.
        """
        self.model.check(inputs)
        size = sum(array.nbytes for array in inputs.values())
        shared = self._place.thread.executor
        # Never beside its own thread: the lane of the crash page holds one run.
        if shared is None and not self._inside and self._pace.quick(size):
            return self._run(inputs, outputs, size)
        if self._inside >= self._most_waiting:
            raise Busy(
                f"cannot run {self.request.name}: {self._inside} requests wait for it",
                retry_after_s=self._inside * self._pace.typical_s,
            )
        executor = shared or self._thread()
        stop = Stop()
        queued = executor.submit(self._run, inputs, outputs, size, stop)
        self._inside += 1
        running: asyncio.Future[Ran] = asyncio.wrap_future(queued)
        running.add_done_callback(self._leave)
        return self._outcome(queued, running, stop, within_s)

    async def _outcome(
        self,
        queued: "Future[Ran]",
        running: "asyncio.Future[Ran]",
        stop: Stop,
        within_s: float | None,
    ) -> Ran:
        try:
            done, _ = await asyncio.wait({running}, timeout=within_s)
            if done:
                return running.result()
            raise Expired(f"cannot run {self.request.name}: not done within {within_s:g} s")
        finally:
            if not running.done() and not queued.cancel():
                stop.now()

    def _thread(self) -> ThreadPoolExecutor:
        if self._own is None:
            self._own = ThreadPoolExecutor(1, thread_name_prefix=f"run {self.request.name}")
        return self._own

    def _leave(self, running: "asyncio.Future[Ran]") -> None:
        if not running.cancelled():
            running.exception()  # perhaps nobody waits for it any more
        self._inside -= 1
        if self._retired and not self._inside:
            self._empty.set()

    def _run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        size: int,
        stop: Stop | None = None,
    ) -> Ran:
        page, lane, _ = self._place
        page[lane] = self.request.index
        # On a thread by CPU time, because wall time on a busy device is others' too. On the loop
        # by wall time: asking the kernel for CPU time costs more than the quickest models.
        cpu_ns = time.thread_time_ns() if stop is not None else 0
        began_ns = time.perf_counter_ns()
        try:
            arrays = self.model.run(inputs, outputs, stop=stop)
            ended_ns = time.perf_counter_ns()
        finally:
            page[lane] = 0
        alone = stop is not None and self.request.runtime.threads == 1
        took_ns = time.thread_time_ns() - cpu_ns if alone else ended_ns - began_ns
        self._pace.learn(took_ns / 1e9, size)
        return Ran(arrays, began_ns, ended_ns)

    async def retire(self, *, within_s: float) -> None:
        """Wait until nobody is inside, then free the model; whoever stays longer keeps it alive.

        To be called when nobody can enter any more.
        """
        self._retired = True
        try:
            if self._inside:
                async with asyncio.timeout(within_s):
                    await self._empty.wait()
            self.model.close()
        except TimeoutError:
            pass  # the last request that is inside holds the last reference
        if self._own is not None:
            self._own.shutdown(wait=False)
