"""What a device tells: replies, events, its retained status and its telemetry."""

from typing import Any, Literal

from pydantic import Field

from agent.protocol.sketch import Quantiles
from compression.job import DeviceClass
from compression.words import Words

Outcome = Literal["accepted", "done", "refused", "failed"]
EventKind = Literal[
    "state",
    "progress",
    "tried",
    "refused",
    "swapped",
    "observed",
    "crashed",
    "corrupt",
    "evicted",
    "dropped",
]


class Reply(Words):
    """The answer to one command, sent to its response topic."""

    id: str
    device: str
    outcome: Outcome
    message: str = ""
    result: dict[str, Any] = Field(default_factory=dict)


class Event(Words):
    """One thing that happened. `figures` are measured values with units in their names.

    | kind     | `state`            | `figures`                                              |
    | state    | the state entered  | `log`: the last lines of what failed on the way there  |
    | progress | the state it is in | `fraction`, `stage`; of a pull `done_bytes`, `bytes`   |
    | tried    | COMPRESSING        | `label`, `accepted`, and `measurement` where one ran   |
    | swapped  | the state it is in | `label`, `sha256`, `load_ms`, ..., `measurement`       |
    | observed | OBSERVING          | `keep`, `compared`, `agreement`, `low`, `high`, ...    |
    | refused  |                    | what was refused is in `message`                       |
    | crashed  |                    | `blamed`, `log`: the last lines that the server wrote  |
    | corrupt  |                    | what arrived damaged is in `message`                   |
    | dropped  |                    | `what`, `messages`, `from_s`, `to_s`: lost for no room |
    | evicted  |                    | the version that gave way for another, in `message`    |
    """

    device: str
    at_s: float
    kind: EventKind
    model: str | None = None
    version: int | None = None
    deployment: str | None = None
    """The id of the command that began it."""
    state: str | None = None
    message: str = ""
    figures: dict[str, Any] = Field(default_factory=dict)


class Live(Words):
    """What really runs for one model: the hash of the file that is loaded."""

    name: str
    version: int
    state: str
    sha256: str | None = None
    variant: str | None = None
    meets_budget: bool | None = None
    verified: bool | None = None
    """False where no real inputs have shown how alike the variant answers."""
    message: str = ""


class Status(Words):
    """Retained: what a device is and what it serves. The will is the same with online false."""

    device: str
    online: bool
    at_s: float
    agent_version: str
    device_class: DeviceClass | None = None
    models: tuple[Live, ...] = ()
    ready: bool = False
    not_ready_because: str = ""
    http_url: str | None = None


class ModelTelemetry(Words):
    """One model over one interval. `latency_ms` merges across devices and intervals."""

    name: str
    version: int
    sha256: str
    requests: int
    failures: int
    latency_ms: Quantiles
    cpu_seconds: float
    joules: float | None = None
    joules_per_inference: float | None = None
    energy_method: str


class IdleWork(Words):
    """Work that goes on only while the device is idle, since it was asked for."""

    model: str
    version: int
    working: bool
    because: str = ""
    """Why it does not go on now."""
    worked_s: float
    waited_s: float
    pauses: int
    """How often it had begun and had to make way."""


class Telemetry(Words):
    """A batch of measurements from one device."""

    device: str
    from_s: float
    to_s: float
    sequence: int
    agent_rss_mib: float
    server_rss_mib: float | None = None
    memory_available_mib: float
    cpu_share: float
    server_restarts: int
    dropped_messages: int
    models: tuple[ModelTelemetry, ...]
    idle_work: tuple[IdleWork, ...] = ()
