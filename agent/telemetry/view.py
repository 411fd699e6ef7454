"""What the status page and the metrics show: frozen, and put together by whoever serves them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.device import headroom, kernel, profile
from agent.protocol.events import IdleWork, Status
from agent.protocol.sketch import Quantiles


@dataclass(frozen=True)
class HostFigures:
    """The device at one moment. `cpu_share` is of the CPUs we may use, since the last look."""

    agent_rss_mib: float
    memory_available_mib: float
    cpu_share: float


@dataclass(frozen=True)
class Counts:
    """What other rooms have counted since the agent started."""

    server_restarts: int = 0
    dropped_messages: int = 0


@dataclass(frozen=True)
class ModelTotals:
    """One version since the agent started, all its variants together."""

    name: str
    version: int
    requests: int = 0
    failures: int = 0
    cpu_seconds: float = 0.0
    joules: float = 0.0
    latency_ms: Quantiles = field(default_factory=Quantiles)


@dataclass(frozen=True)
class StatusView:
    """All that a look at the agent can show. Times are seconds since 1970, UTC."""

    status: Status
    started_at_s: float
    host: HostFigures
    counts: Counts
    totals: tuple[ModelTotals, ...]
    server_rss_mib: float | None
    energy_method: str
    relative_uncertainty: float
    idle_work: tuple[IdleWork, ...] = ()


class HostMeter:
    """Reads HostFigures; each reader has its own, because a share is since its last look."""

    def __init__(self, sampler: Callable[[], dict[int, kernel.CpuTimes]] = headroom.sample):
        self._sampler = sampler
        self._cpus = profile.allowed_cpus()
        self._before = sampler()

    def read(self) -> HostFigures:
        """The figures now, and the CPU share since the last call."""
        now = self._sampler()
        idle = kernel.idle_share(self._before, now, cpus=self._cpus)
        # Looked at twice within one tick of the clock: nothing is known, so nothing is claimed.
        still = all(now[cpu].total == self._before[cpu].total for cpu in self._cpus & now.keys())
        self._before = now
        return HostFigures(
            agent_rss_mib=round(headroom.process_rss_mib(), 1),
            memory_available_mib=round(headroom.memory_available()[0] / 2**20, 1),
            cpu_share=0.0 if still else round(1.0 - idle, 4),
        )
