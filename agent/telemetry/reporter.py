"""Merges the server's polls into intervals, and hands each interval to the spool."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.device.energy import CpuEnergy
from agent.errors import TrimtabError
from agent.protocol.events import IdleWork, ModelTelemetry, Telemetry
from agent.protocol.private import ModelStatus, ServerStatus
from agent.protocol.sketch import Sketch
from agent.telemetry import energy_account
from agent.telemetry.energy_account import Account, Spent, Variant
from agent.telemetry.view import Counts, HostFigures, ModelTotals

_log = logging.getLogger(__name__)
_MOST_TOTALS = 256
"""Versions whose totals are kept; beyond it the one that was quiet the longest is forgotten."""


@dataclass
class _Served:
    """The counters of one model over some time."""

    requests: int = 0
    failures: int = 0
    latency_ms: Sketch = field(default_factory=Sketch)

    def add(self, model: ModelStatus) -> None:
        self.requests += model.requests
        self.failures += model.failures
        self.latency_ms.merge(Sketch.thaw(model.latency_ms))


class Reporter:
    """Takes polls as they come, gives telemetry when an interval ends, and keeps totals.

    `host`, `counts` and `idle_work` are asked once an interval; `wall` gives seconds since 1970.
    """

    def __init__(
        self, device: str, *, source: CpuEnergy, host: Callable[[], HostFigures],
        counts: Callable[[], Counts], wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        idle_work: Callable[[], tuple[IdleWork, ...]] = tuple,
    ):  # fmt: skip
        self._device, self.source = device, source
        self._host, self._counts, self._wall, self._monotonic = host, counts, wall, monotonic
        self.idle_work = idle_work
        self._account = Account()
        self._served: dict[Variant, _Served] = {}
        self._totals: dict[tuple[str, int], _Served] = {}
        self._spent: dict[tuple[str, int], Spent] = {}
        self._began_at, self._sequence = monotonic(), 0
        self.server_rss_mib: float | None = None

    def observe(self, status: ServerStatus) -> None:
        """Take one poll of the server; one that was taken before changes nothing."""
        if energy_account.is_repeat(self._account, status):
            return
        before = self._account.models
        self._account = energy_account.observe(self._account, status, source=self.source)
        self.server_rss_mib = status.rss_mib
        for model in status.models:
            variant = energy_account.variant_of(model)
            now, then = self._account.models.get(variant, Spent()), before.get(variant, Spent())
            self._add_total(model, cpu_seconds=now.cpu_seconds - then.cpu_seconds)
            if model.requests or model.failures:
                self._served.setdefault(variant, _Served()).add(model)

    def snapshot(self) -> Telemetry:
        """Telemetry since the last snapshot; a new interval begins."""
        host, counts = self._host(), self._counts()
        now, to_s = self._monotonic(), self._wall()
        telemetry = Telemetry(
            device=self._device,
            # The wall clock may be set in between, so the length is the monotonic clock's.
            from_s=to_s - (now - self._began_at),
            to_s=to_s,
            sequence=self._sequence,
            agent_rss_mib=host.agent_rss_mib,
            server_rss_mib=self.server_rss_mib,
            memory_available_mib=host.memory_available_mib,
            cpu_share=host.cpu_share,
            server_restarts=counts.server_restarts,
            dropped_messages=counts.dropped_messages,
            models=tuple(
                self._model(variant)
                for variant in sorted({*self._served, *self._account.models})
            ),
            idle_work=self.idle_work(),
        )  # fmt: skip
        self._account = energy_account.emptied(self._account)
        self._served, self._began_at = {}, now
        self._sequence += 1
        return telemetry

    def totals(self) -> tuple[ModelTotals, ...]:
        """Each version's figures since the agent started."""
        return tuple(
            ModelTotals(
                name=name, version=version, requests=served.requests, failures=served.failures,
                cpu_seconds=self._spent[name, version].cpu_seconds,
                joules=self._spent[name, version].joules,
                latency_ms=served.latency_ms.freeze(),
            )
            for (name, version), served in sorted(self._totals.items())
        )  # fmt: skip

    async def run(self, interval_s: float, *, enqueue: Callable[[Telemetry], object]) -> None:
        """Enqueue one snapshot every `interval_s` until cancelled, and then what is left."""
        try:
            while True:
                await asyncio.sleep(interval_s)
                self._hand_over(enqueue)
        finally:
            self._hand_over(enqueue)

    def _hand_over(self, enqueue: Callable[[Telemetry], object]) -> None:
        telemetry = self.snapshot()
        try:
            enqueue(telemetry)
        except (TrimtabError, OSError) as error:
            # A full disk must not end the reports for good.
            _log.warning("cannot keep telemetry %d: %s", telemetry.sequence, error)

    def _model(self, variant: Variant) -> ModelTelemetry:
        served = self._served.get(variant) or _Served()
        spent = self._account.models.get(variant, Spent())
        return ModelTelemetry(
            name=variant.name,
            version=variant.version,
            sha256=variant.sha256,
            requests=served.requests,
            failures=served.failures,
            latency_ms=served.latency_ms.freeze(),
            cpu_seconds=spent.cpu_seconds,
            joules=spent.joules,
            joules_per_inference=spent.joules / served.requests if served.requests else None,
            energy_method=self.source.method,
        )

    def _add_total(self, model: ModelStatus, *, cpu_seconds: float) -> None:
        key = (model.name, model.version)
        # Taken out and put back, so that the first one is the one that was quiet the longest.
        total = self._totals.pop(key, None) or _Served()
        total.add(model)
        self._totals[key] = total
        self._spent[key] = self._spent.get(key, Spent()).plus(cpu_seconds, self.source)
        while len(self._totals) > _MOST_TOTALS:
            oldest = next(iter(self._totals))
            del self._totals[oldest], self._spent[oldest]
