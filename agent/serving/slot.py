"""Which variant of each name is live: swapped whole, the old one drained and freed.

Beside: load, check the bytes, warm, probe; then switch in one step; then drain and free. In its
place, where memory allows no other way: hold requests, drain, free, then load; what served before
comes back where that fails. A load that fails leaves what serves as it was.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import Unavailable
from agent.protocol.crash_page import LANES, CrashPage
from agent.protocol.private import LoadReply, LoadRequest, ServerStatus
from agent.serving import fitting, loading, replies, runtime, vitals
from agent.serving.faults import NotFound
from agent.serving.gate import Gate
from agent.serving.meter import Key, Ledger
from agent.serving.runs import Place, SharedThread
from agent.serving.variant import MOST_WAITING, Variant
from agent.serving.worker import Worker

DRAIN_S = 30.0
_Result = TypeVar("_Result")


class Slots:
    """The live variants by name, and the ledger of what all variants did.

    `serial` runs all models on one thread, one at a time, so that a crash names its model.
    `careful` refuses what would not fit in memory: not while what served before comes back.
    """

    def __init__(
        self,
        *,
        page: CrashPage,
        serial: bool = False,
        careful: bool = True,
        most_waiting: int = MOST_WAITING,
        available_mib: Callable[[], float] = vitals.available_mib,
    ) -> None:
        self._live: dict[str, Variant] = {}
        self.resting: dict[str, LoadRequest] = {}
        """What a client has unloaded, and may load again."""
        self.careful = careful
        self._page = page
        self._most_waiting = most_waiting
        self._available_mib = available_mib
        self._ledger = Ledger()
        self._lanes = itertools.cycle(range(LANES))
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._serial = SharedThread(Worker("run") if serial else None)
        # One at a time: two models being loaded would be two peaks of memory.
        self._changing = asyncio.Lock()
        self._beside_now: LoadRequest | None = None
        """What is being loaded beside what serves under its name."""
        self._taken_back = False
        """... and is not to switch: nobody waits for it, and what serves was asked for again."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def __iter__(self) -> Iterator[Variant]:
        return iter(self._live.values())

    def find(self, name: str, version: str | None = None) -> Variant:
        """The live variant of a name.

        Raises:
            NotFound: nothing of that name is live, or it has another version.
        """
        variant = self._live.get(name)
        if variant is None:
            if name in self.resting:
                raise NotFound(f"cannot find model '{name}': a client unloaded it")
            known = ", ".join(sorted(self._live)[:8]) or "none"
            raise NotFound(f"cannot find model '{name[:80]}': live are {known}")
        if version is not None and version != variant.version:
            raise NotFound(
                f"cannot find version {version[:20]} of model '{name}': "
                f"version {variant.request.version} is live"
            )
        return variant

    async def load(self, request: LoadRequest, *, instead: bool = False) -> LoadReply:
        """Load a variant, prove it, switch to it and free the old one.

        It goes on to its end when nobody waits for it any more; `instead`: unless what serves is
        asked for again while another one is being loaded beside it.

        Raises:
            BadInput, Corrupt: as agent.serving.runtime.load.
            Refused: it answers its probe wrongly.
            Unavailable: no memory is left for it.
        """
        if instead and self._takes_back(request):
            return LoadReply(load_ms=0, warm_ms=0, drain_ms=0, rss_mib=vitals.rss_mib())
        return await self._to_its_end(self._load(request), f"load {request.name}")

    def _takes_back(self, request: LoadRequest) -> bool:
        live, other = self._live.get(request.name), self._beside_now
        if live is None or other is None or other.name != request.name:
            return False
        if live.request.model_copy(update={"index": request.index}) != request:
            return False
        live.request = request
        self._taken_back = True
        return True

    async def unload(self, name: str, *, rest: bool = False) -> None:
        """Take a model out of service, drain and free it; `rest`: it may be loaded again.

        Raises:
            NotFound: nothing of that name is live.
        """
        await self._to_its_end(self._unload(name, rest=rest), f"unload {name}")

    async def reload(self, name: str) -> LoadReply:
        """Load again what is live under a name, or was until a client unloaded it.

        Raises:
            NotFound: nothing of that name was loaded.
            and what `load` raises.
        """
        request = self.resting.get(name) or self.find(name).request
        return await self.load(request.model_copy(update={"resting": False}))

    async def _to_its_end(self, work: Coroutine[Any, Any, _Result], name: str) -> _Result:
        """Run `work` as a task of its own: half a swap must not be left behind."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _load(self, request: LoadRequest) -> LoadReply:
        async with self._changing:
            if request.resting:
                self.resting[request.name] = request
                return LoadReply(load_ms=0, warm_ms=0, drain_ms=0, rss_mib=vitals.rss_mib())
            # Aside, because the control groups are a dozen files: a millisecond for whoever waits.
            free_mib = await self._aside(self._available_mib) if self.careful else math.inf
            old = self._live.get(request.name)
            how = fitting.choose(
                request,
                file_mib=_file_mib(request),
                available_mib=free_mib,
                replaced_mib=old.held_mib if old else None,
            )
            try:
                if how == "replace" and old is not None:
                    return await self._replace(request, old)
                return await self._beside(request, old)
            finally:
                await self._aside(runtime.give_back_memory)

    async def _beside(self, request: LoadRequest, old: Variant | None) -> LoadReply:
        self._beside_now, self._taken_back = request, False
        try:
            ready = await self._prepared(request)
        finally:
            self._beside_now = None
        if self._taken_back:
            await self._aside(ready.model.close)
            raise Unavailable(f"cannot load {request.name}: what serves was asked for again")
        self._switch(ready)
        began = time.perf_counter()
        if old is not None:
            await old.drain(within_s=DRAIN_S)
            await self._aside(old.free)
        return replies.loaded(ready, old, drain_ms=_since_ms(began))

    async def _replace(self, request: LoadRequest, old: Variant) -> LoadReply:
        old.gate = gate = Gate(request.name, most_waiting=self._most_waiting)
        began = time.perf_counter()
        try:
            if not await old.drain(within_s=DRAIN_S):
                old.go_on()
                old.gate = None
                raise Unavailable(
                    f"cannot replace {request.name}: requests are in it after {DRAIN_S:g} s"
                )
            drain_ms = _since_ms(began)
            await self._aside(old.free)
            await self._aside(runtime.give_back_memory)
            try:
                ready = await self._prepared(request)
            except Exception:
                await self._restore(old)
                raise
            self._switch(ready)
            return replies.loaded(ready, old, drain_ms=drain_ms, gap_ms=_since_ms(began))
        finally:
            gate.open()

    async def _restore(self, old: Variant) -> None:
        """Load again what served; if not even that can be, nothing is live under the name."""
        try:
            self._switch(await self._prepared(old.request))
        except BaseException:
            del self._live[old.request.name]
            raise

    async def _prepared(self, request: LoadRequest) -> loading.Ready:
        place = Place(self._page, next(self._lanes), self._serial, self._alone)
        return await self._aside(loading.prepare, request, place)

    def _alone(self) -> bool:
        return len(self._live) == 1

    def _switch(self, ready: loading.Ready) -> None:
        """Put the new one in place; nobody enters the old one from now on."""
        request = ready.request
        self._live[request.name] = Variant(
            request,
            ready.model,
            meter=self._ledger.meter(Key(request.name, request.version, request.sha256)),
            place=ready.place,
            pace=ready.pace,
            held_mib=ready.held_mib,
            most_waiting=self._most_waiting,
        )
        self.resting.pop(request.name, None)

    async def _unload(self, name: str, *, rest: bool) -> None:
        async with self._changing:
            if name in self.resting and not rest:
                del self.resting[name]
                return
            variant = self.find(name)
            del self._live[name]
            if rest:
                self.resting[name] = variant.request
            await variant.drain(within_s=DRAIN_S)
            await self._aside(variant.free)
            await self._aside(runtime.give_back_memory)

    async def _aside(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work, *arguments)

    def run_apart(self) -> None:
        """Give each model its own thread again, where they shared one."""
        if self._serial.worker is not None:
            self._serial.worker.end()
        self._serial.worker = None

    def status(self, *, acknowledged: int) -> ServerStatus:
        """The heartbeat and the counters since the status with that sequence number."""
        live = frozenset(variant.key for variant in self)
        sequence, counts = self._ledger.poll(acknowledged=acknowledged, live=live)
        resting = tuple(request.sha256 for request in self.resting.values())
        return replies.status(sequence, counts, live=live, resting=resting)


def _file_mib(request: LoadRequest) -> float:
    path = Path(request.path)
    return path.stat().st_size / 2**20 if path.is_file() else 0.0  # loading says what is wrong


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1e3
