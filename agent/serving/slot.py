"""Which variant of each name is live: swapped whole, the old one drained and freed.

Load beside, check the bytes, warm, probe; then switch in one step; then drain and free. A load
that fails leaves what serves as it was.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from agent.protocol.crash_page import LANES, CrashPage
from agent.protocol.private import LoadReply, LoadRequest, ModelStatus, ServerStatus
from agent.serving import loading, runtime, vitals
from agent.serving.faults import NotFound
from agent.serving.meter import Key, Ledger
from agent.serving.variant import Place, SharedThread, Variant

DRAIN_S = 30.0


class Slots:
    """The live variants by name, and the ledger of what all variants did.

    `serial` runs all models on one thread, one at a time, so that a crash names its model.
    """

    def __init__(self, *, page: CrashPage, serial: bool = False) -> None:
        self._live: dict[str, Variant] = {}
        self._page = page
        self._ledger = Ledger()
        self._lanes = itertools.cycle(range(LANES))
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._serial = SharedThread(
            ThreadPoolExecutor(1, thread_name_prefix="run") if serial else None
        )
        # One at a time: two models being loaded would be two peaks of memory.
        self._changing = asyncio.Lock()

    def __iter__(self) -> Iterator[Variant]:
        return iter(self._live.values())

    def find(self, name: str, version: str | None = None) -> Variant:
        """The live variant of a name.

        Raises:
            NotFound: nothing of that name is live, or it has another version.
        """
        variant = self._live.get(name)
        if variant is None:
            known = ", ".join(sorted(self._live)[:8]) or "none"
            raise NotFound(f"cannot find model '{name[:80]}': live are {known}")
        if version is not None and version != str(variant.request.version):
            raise NotFound(
                f"cannot find version {version[:20]} of model '{name}': "
                f"version {variant.request.version} is live"
            )
        return variant

    async def load(self, request: LoadRequest) -> LoadReply:
        """Load a variant beside the live one, prove it, switch to it and free the old one.

        Raises:
            BadInput, Corrupt, Unavailable: as agent.serving.runtime.load.
            Refused: it answers its probe wrongly.
        """
        loop = asyncio.get_running_loop()
        async with self._changing:
            place = Place(self._page, next(self._lanes), self._serial)
            try:
                ready = await loop.run_in_executor(self._loader, loading.prepare, request, place)
                old = self._switch(request, ready, place)
                began = time.perf_counter()
                if old is not None:
                    await old.retire(within_s=DRAIN_S)
                drain_ms = (time.perf_counter() - began) * 1e3
            finally:
                await loop.run_in_executor(self._loader, runtime.give_back_memory)
        return LoadReply(
            load_ms=ready.load_ms,
            warm_ms=ready.warm_ms,
            drain_ms=drain_ms,
            replaced_sha256=old.request.sha256 if old else None,
            probe_sqnr_db=ready.probe_sqnr_db,
            rss_mib=vitals.rss_mib(),
        )

    def _switch(self, request: LoadRequest, ready: loading.Ready, place: Place) -> Variant | None:
        """Put the new one in place; return the old one, which nobody enters from now on."""
        key = Key(request.name, request.version, request.sha256)
        old = self._live.get(request.name)
        self._live[request.name] = Variant(
            request,
            ready.model,
            meter=self._ledger.meter(key),
            place=place,
            pace=ready.pace,
        )
        return old

    async def unload(self, name: str) -> None:
        """Take a model out of service, drain and free it.

        Raises:
            NotFound: nothing of that name is live.
        """
        async with self._changing:
            variant = self.find(name)
            del self._live[name]
            await variant.retire(within_s=DRAIN_S)
            await asyncio.get_running_loop().run_in_executor(self._loader, runtime.give_back_memory)

    def run_apart(self) -> None:
        """Give each model its own thread again, where they shared one."""
        self._serial.executor = None

    def status(self, *, acknowledged: int) -> ServerStatus:
        """The heartbeat and the counters since the status with that sequence number."""
        live = frozenset(variant.key for variant in self)
        sequence, counts = self._ledger.poll(acknowledged=acknowledged, live=live)
        return ServerStatus(
            sequence=sequence,
            pid=vitals.PID,
            process_cpu_s=vitals.cpu_s(),
            rss_mib=vitals.rss_mib(),
            models=tuple(
                ModelStatus(
                    name=key.name,
                    version=key.version,
                    sha256=key.sha256,
                    state="READY" if key in live else "UNAVAILABLE",
                    requests=each.requests,
                    failures=each.failures,
                    busy_s=each.busy_s,
                    latency_ms=each.latency_ms,
                )
                for key, each in counts.items()
            ),
        )
