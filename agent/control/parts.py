"""What the steps work with; `app` builds it and hands it in."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.control.arbitration import Room
from agent.control.heavy import Heavy
from agent.control.leisure import Leisure
from agent.control.observation import Counters
from agent.control.record import Deployment, Record, Variant
from agent.control.states import Event
from agent.host.breaks import Breaks
from agent.protocol.capturing import (
    CaptureOrder,
    CaptureStatus,
    Compared,
    Gathered,
    GatherJob,
    ShadowJob,
)
from agent.protocol.events import EventKind
from agent.protocol.manifest import FileRef
from agent.protocol.private import LoadReply, LoadRequest
from agent.store.catalog import Catalog
from compression.findings import Ladder, Measurement
from compression.job import Budget, CompressJob, DeviceClass, TrialJob
from compression.stream import Progress, Tried

TRIAL_SECONDS = 6.0
"""How long the rounds of one trial may take: a deployed device shares its cores with its work."""
FORECAST = 3.0
"""Memory of a model that nobody could measure (it came without inputs), per byte of its file:
weights, their prepacked copy, and activations. Deliberately high."""
RUNTIME_MIB = 64.0
"""What a process with the runtime takes before any model."""


class Compress(Protocol):
    """Runs one job to its ladder; see agent.host.best_so_far.compress."""

    def __call__(
        self,
        job: CompressJob,
        *,
        on_progress: Callable[[Progress], None],
        on_tried: Callable[[Tried], None],
        breaks: Breaks | None = None,
    ) -> Awaitable[Ladder]: ...


class Shadow(Protocol):
    """Runs a reference beside what serves; what it yields tells the newest comparison."""

    def __call__(
        self, job: ShadowJob
    ) -> contextlib.AbstractAsyncContextManager[Callable[[], Compared]]: ...


class Emit(Protocol):
    """Tells the fleet what happened to a deployment."""

    def __call__(
        self, kind: EventKind, record: Record, message: str = "", **figures: Any
    ) -> None: ...


class Step(Protocol):
    """Has a model at rest serve another of its variants; returns when it does, or cannot."""

    def __call__(self, model: str, variant: Variant, message: str) -> Awaitable[None]: ...


async def _nobody(model: str, variant: Variant, message: str) -> None:
    """No other models are here."""
    del model, variant, message


@dataclass(frozen=True)
class Parts:
    """What the steps work with; `app` hands it in."""

    state_dir: Path
    catalog: Catalog
    fetch_manifest: Callable[[str, int], Awaitable[bytes]]
    """The payload of a manifest whose signature has been verified."""
    fetch_file: Callable[[FileRef, Path, Callable[[int, int], None]], Awaitable[None]]
    trial: Callable[[TrialJob], Awaitable[Measurement]]
    compress: Compress
    load: Callable[[LoadRequest], Awaitable[LoadReply]]
    unload: Callable[[str], Awaitable[None]]
    served: Callable[[str], str | None]
    """The sha256 of what the server runs under a name."""
    device_class: DeviceClass
    default_budget: Callable[[], Budget]
    available_mib: Callable[[], float]
    work_memory_mib: float
    emit: Emit
    heavy: Heavy
    leisure: Leisure
    """Lets work that can wait go on while the device is idle."""
    capture: Callable[[CaptureOrder], Awaitable[CaptureStatus]]
    """Has the server keep some of its requests; the same order again goes on."""
    gather: Callable[[GatherJob], Awaitable[Gathered]]
    shadow: Shadow
    counters: Callable[[str, str], Counters]
    """What the variant of that name and sha256 did since the agent started."""
    private_dir: Path
    """In memory, where the device has such a folder: live inputs are nobody else's business."""
    key_file: Path | None = None
    """Seals collected inputs at rest."""
    clock: Callable[[], float] = time.monotonic
    poll_s: float = 1.0
    room: Callable[[], Room] = Room
    """What the models of this device may take together."""
    neighbours: Callable[[], tuple[Record, ...]] = tuple
    """What is known of every model of this device."""
    step: Step = _nobody
    arranging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is decided who steps down for whom, and until they have."""

    def relative(self, path: Path) -> str:
        """A path as records keep it: a state folder can be moved."""
        return str(path.relative_to(self.state_dir))

    def absolute(self, path: str) -> Path:
        """A record's path on this device."""
        return self.state_dir / path


Outcome = tuple[Event, Record]


def deployment_of(record: Record) -> Deployment:
    """The deployment that a step works on; a record without one has no step to take."""
    assert record.deployment is not None
    return record.deployment


def say(record: Record, event: Event, message: str) -> Outcome:
    """An outcome with the sentence that explains it."""
    return event, record.with_deployment(message=message)
