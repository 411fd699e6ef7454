"""What the agent is told of a load, and once a second of everything (pure but for the vitals)."""

from collections.abc import Mapping

from agent.protocol.private import LoadReply, ModelStatus, ServerStatus
from agent.serving import vitals
from agent.serving.loading import Ready
from agent.serving.meter import Counts, Key
from agent.serving.variant import Variant


def loaded(ready: Ready, old: Variant | None, *, drain_ms: float, gap_ms: float = 0.0) -> LoadReply:
    """The switch has happened: what it took."""
    return LoadReply(
        load_ms=ready.load_ms,
        warm_ms=ready.warm_ms,
        drain_ms=drain_ms,
        gap_ms=gap_ms,
        replaced_sha256=old.request.sha256 if old else None,
        probe_sqnr_db=ready.probe_sqnr_db,
        rss_mib=vitals.rss_mib(),
    )


def status(
    sequence: int, counts: Mapping[Key, Counts], *, live: frozenset[Key], resting: tuple[str, ...]
) -> ServerStatus:
    """The heartbeat and the counters; `resting` is what clients have unloaded, by sha256."""
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
        resting=resting,
    )
