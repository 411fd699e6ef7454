"""What the agent and its server say to one another over the private socket.

The public protocol plus these: POST /v2/repository/models/NAME/load with a LoadRequest,
POST .../unload, GET /v2/trimtab/status?ack=SEQUENCE with a ServerStatus, and POST
/v2/trimtab/open: begin to accept on the public sockets. An error is `{"error": "cannot ..."}`
under the status of ERROR_STATUS.
"""

from typing import Annotated, Literal

from pydantic import Field

from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from agent.protocol.sketch import Quantiles
from compression.job import InputSpec, OutputSpec, Runtime, Sha256
from compression.words import Words

STATUS_PATH = "/v2/trimtab/status"
OPEN_PATH = "/v2/trimtab/open"
ERROR_STATUS: dict[type[TrimtabError], int] = {
    BadInput: 400,
    Refused: 409,
    Corrupt: 422,
    Unavailable: 503,
}
"""The HTTP status that carries each kind of error; another kind is 500."""


class LoadRequest(Words):
    """Load a file, prove it, and let it serve under its name.

    `index` is what the server writes to the crash page while it loads or runs this model.
    `probe_path` is an .npz of inputs (NAME) and the outputs to expect (`::expected::NAME`).
    `swap`: beside what serves until it is proven; or in its place, while requests wait; or
    whichever the memory allows.
    """

    name: str
    version: int
    path: str
    sha256: Sha256
    index: Annotated[int, Field(ge=1, le=65_535)]
    runtime: Runtime = Runtime()
    inputs: tuple[InputSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    probe_path: str | None = None
    swap: Literal["auto", "beside", "replace"] = "auto"
    needs_mib: Annotated[float, Field(gt=0)] | None = None
    """Its peak memory as measured; without it twice the file."""
    resting: bool = False
    """Do not load it: a client unloaded it, and may load it again."""


class LoadReply(Words):
    """The switch has happened: what it took, and how the probe compared (None: no probe)."""

    load_ms: float
    warm_ms: float
    drain_ms: float
    gap_ms: float = 0.0
    """How long requests had to wait, where it took the other one's place."""
    replaced_sha256: str | None = None
    probe_sqnr_db: float | None = None
    rss_mib: float


class ModelStatus(Words):
    """One model's counters since the status that was acknowledged last."""

    name: str
    version: int
    sha256: str
    state: Literal["READY", "UNAVAILABLE"]
    requests: int
    failures: int
    busy_s: float
    latency_ms: Quantiles


class ServerStatus(Words):
    """The heartbeat. Counters repeat until their `sequence` is acknowledged in the next poll."""

    sequence: int
    pid: int
    process_cpu_s: float
    rss_mib: float
    models: tuple[ModelStatus, ...]
    resting: tuple[str, ...] = ()
    """The sha256 of what clients have unloaded, and may load again."""
