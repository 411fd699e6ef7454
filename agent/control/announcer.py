"""Tells the fleet what happens: records become events and the retained status."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal

from agent.control.record import Record
from agent.control.states import State
from agent.errors import TrimtabError
from agent.protocol.events import Event, EventKind, Live, Status
from agent.version import __version__
from compression.job import DeviceClass

log = logging.getLogger(__name__)

Rank = Literal["telemetry", "event"]
PROGRESS_EVERY_S = 0.5
"""Progress within one stage is news at most this often."""
_RANKS: dict[str, Rank] = {"progress": "telemetry"}
"""Progress is the first to go when the spool is full; everything else is an event."""


class Announcer:
    """Makes events and hands them to `enqueue(rank, event)`; `changed()` after each real one."""

    def __init__(
        self,
        device: str,
        *,
        enqueue: Callable[[Rank, Event], None],
        changed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """Speak for `device`; `clock` gives seconds since 1970."""
        self._device, self._enqueue, self._changed, self._clock = device, enqueue, changed, clock
        self._last_progress: dict[tuple[str, Any], float] = {}

    def __call__(self, kind: EventKind, record: Record, message: str = "", **figures: Any) -> None:
        """Tell one thing about a record's deployment."""
        now_s = self._clock()
        if kind == "progress":
            key = (record.model, figures.get("stage"))
            if abs(now_s - self._last_progress.get(key, 0.0)) < PROGRESS_EVERY_S:
                return
            self._last_progress[key] = now_s
        deployment = record.deployment
        self._send(
            Event(
                device=self._device,
                at_s=now_s,
                kind=kind,
                model=record.model,
                version=deployment.version if deployment else None,
                deployment=deployment.id if deployment else None,
                state=deployment.state if deployment else None,
                message=message,
                figures=figures,
            )
        )
        if kind != "progress":
            self._changed()

    def trouble(self, kind: EventKind, message: str, **figures: Any) -> None:
        """Tell one thing that belongs to no deployment: a refused envelope, a crash."""
        log.warning("%s: %s", kind, message)
        self._send(
            Event(
                device=self._device,
                at_s=self._clock(),
                kind=kind,
                message=message,
                model=figures.get("blamed"),
                figures=figures,
            )
        )
        self._changed()

    def _send(self, event: Event) -> None:
        try:
            self._enqueue(_RANKS.get(event.kind, "event"), event)
        except (TrimtabError, OSError) as error:  # a full disk must not end a deployment
            log.warning("cannot keep an event (%s): %s", event.kind, error)


def live_models(records: Iterable[Record], served: Callable[[str], str | None]) -> tuple[Live, ...]:
    """What really runs: the hash that the server reports, not the one that was asked for."""
    return tuple(
        Live(
            name=record.model,
            version=record.live.version if record.live else 0,
            state=record.deployment.state if record.deployment else State.LIVE,
            sha256=served(record.model),
            variant=record.live.label if record.live else None,
            meets_budget=record.live.meets_budget if record.live else None,
            verified=record.live.verified if record.live else None,
            message=record.deployment.message if record.deployment else "",
        )
        for record in records
    )


def not_ready(models: Iterable[Live], records: Iterable[Record], *, server_up: bool) -> str:
    """Why requests cannot all be answered now; empty where they can."""
    if not server_up:
        return "the server is starting"
    wanted = {record.model: record.live.sha256 for record in records if record.live}
    missing = [m.name for m in models if m.name in wanted and m.sha256 != wanted[m.name]]
    return f"not loaded yet: {', '.join(missing)}" if missing else ""


def status(
    device: str,
    *,
    at_s: float,
    device_class: DeviceClass,
    records: tuple[Record, ...],
    served: Callable[[str], str | None],
    server_up: bool,
    http_url: str | None,
) -> Status:
    """The retained status of a device that is online."""
    models = live_models(records, served)
    because = not_ready(models, records, server_up=server_up)
    return Status(
        device=device,
        online=True,
        at_s=at_s,
        agent_version=__version__,
        device_class=device_class,
        models=models,
        ready=not because,
        not_ready_because=because,
        http_url=http_url,
    )


def offline(device: str) -> Status:
    """The will: what the broker says of a device that is gone. It carries no time, because it
    is written long before it is read."""
    return Status(device=device, online=False, at_s=0.0, agent_version=__version__)
