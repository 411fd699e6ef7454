"""One loaded model as it serves: on which thread it runs, who is inside, how long it takes."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from agent.errors import Unavailable
from agent.protocol.crash_page import CrashPage
from agent.protocol.private import LoadRequest
from agent.protocol.tensors import Array
from agent.serving.meter import Key, Meter
from agent.serving.runtime import Model

INLINE_S = 1e-3
"""What runs for less runs on the event loop: the way to a thread and back costs about 50 us."""
MOST_WAITING = 256
"""Requests that may wait for one model: each of them holds its inputs."""
_NEWEST_WEIGHT = 0.2
_LARGER = 2


@dataclass
class SharedThread:
    """One thread for all models while it is set, so that one thing runs at a time."""

    executor: ThreadPoolExecutor | None = None


class Place(NamedTuple):
    """Where a variant executes: its lane of the crash page, and perhaps on a shared thread."""

    page: CrashPage
    lane: int
    thread: SharedThread


class Warm(NamedTuple):
    """What a warm run took on its thread, and the bytes of its inputs; infinite: none fitted."""

    cpu_s: float
    size: int


class _Ran(NamedTuple):
    arrays: list[Array]
    busy_s: float
    cpu_s: float


class Variant:
    """A model with one thread of its own, its meter and its lane of the crash page.

    A thread of its own, because a slow model must not keep a quick one waiting; only one,
    because the peak memory that was measured is that of one run at a time.
    """

    def __init__(
        self, request: LoadRequest, model: Model, *, meter: Meter, place: Place, warm: Warm
    ) -> None:
        self.request = request
        self.model = model
        self._meter = meter
        self._place = place
        self._own: ThreadPoolExecutor | None = None
        self._typical_s = math.inf
        self._quick_bytes = 0
        self._learn(warm.cpu_s, warm.size)
        self._in_thread = 0
        self._inside = 0
        self._retired = False
        self._empty = asyncio.Event()

    @property
    def key(self) -> Key:
        """Under which its counters are kept."""
        return Key(self.request.name, self.request.version, self.request.sha256)

    async def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run once; the arrays of `outputs` in their order.

        Raises:
            BadInput: the inputs do not fit the model.
            Unavailable: too many requests wait for it already.
            CannotRun: it failed while it ran.
        """
        began = time.perf_counter()
        self._inside += 1
        try:
            self.model.check(inputs)
            if self._inside > MOST_WAITING:
                raise Unavailable(
                    f"cannot run {self.request.name}: {MOST_WAITING} requests wait for it"
                )
            size = sum(array.nbytes for array in inputs.values())
            ran = await self._execute(inputs, outputs, size)
        except BaseException:
            self._meter.failed()
            raise
        finally:
            self._inside -= 1
            if self._retired and not self._inside:
                self._empty.set()
        self._learn(ran.cpu_s, size)
        self._meter.succeeded(latency_ms=(time.perf_counter() - began) * 1e3, busy_s=ran.busy_s)
        return ran.arrays

    def _learn(self, cpu_s: float, size: int) -> None:
        """By the CPU time of the running thread: wall time on a busy device is others' too."""
        if math.isinf(self._typical_s):
            self._typical_s = cpu_s
        else:
            self._typical_s += _NEWEST_WEIGHT * (cpu_s - self._typical_s)
        if cpu_s < INLINE_S:
            self._quick_bytes = max(self._quick_bytes, size)

    async def _execute(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], size: int
    ) -> _Ran:
        shared = self._place.thread.executor
        # What is much larger than all that was quick may not be. And never beside its own
        # thread: the lane of the crash page holds one run.
        quick = self._typical_s < INLINE_S and size <= _LARGER * self._quick_bytes
        if quick and not self._in_thread and shared is None:
            return self._run(inputs, outputs)
        if shared is None and self._own is None:
            self._own = ThreadPoolExecutor(1, thread_name_prefix=f"run {self.request.name}")
        self._in_thread += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                shared or self._own, self._run, inputs, outputs
            )
        finally:
            self._in_thread -= 1

    def _run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> _Ran:
        page, lane, _ = self._place
        page[lane] = self.request.index
        began, cpu_began = time.perf_counter(), time.thread_time()
        try:
            arrays = self.model.run(inputs, outputs)
            return _Ran(arrays, time.perf_counter() - began, time.thread_time() - cpu_began)
        finally:
            page[lane] = 0

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
