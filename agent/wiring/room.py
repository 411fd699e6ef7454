"""What the models of this device may take together: what is configured, and what there is."""

from collections.abc import Callable, Iterable

from agent.config import Settings
from agent.control.arbitration import Room
from agent.control.record import Record


def room(
    settings: Settings,
    *,
    records: Callable[[], Iterable[Record]],
    available_mib: Callable[[], float],
    server_rss_mib: Callable[[], float | None],
    at_work: Callable[[], bool],
) -> Room:
    """The room now: what is free, what the models hold already, and what a running worker does.

    What they hold is at most what was measured of them, and what the server has: where one of
    them was never measured, that alone is known.
    """
    live = [one.live for one in records() if one.live]
    held = sum(one.measurement.peak_memory_mib for one in live if one.measurement)
    rss = server_rss_mib()
    if rss is not None:
        held = min(held, rss) if all(one.measurement for one in live) else rss
    worker = settings.work_memory_mib
    there = available_mib() + held + (worker if at_work() else 0.0)
    limit = settings.models_memory_mib
    return Room(
        memory_mib=there if limit is None else min(limit, there),
        cpu_share=settings.models_cpu_share,
        worker_mib=worker,
    )
