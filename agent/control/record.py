"""What a deployment remembers across restarts: one JSON file per model, replaced atomically."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from agent.control.states import State
from agent.errors import Corrupt, Unavailable
from agent.protocol.commands import Strategy
from agent.protocol.topics import check_name
from compression import durable
from compression.findings import Measurement
from compression.job import Budget, Runtime, Sha256
from compression.words import Words, explain


class Variant(Words):
    """A file that serves or can serve. `path` is relative to the state folder."""

    version: int
    label: str
    path: str
    sha256: Sha256
    runtime: Runtime
    probe: str | None = None
    measurement: Measurement | None = None
    meets_budget: bool | None = None
    verified: bool = True
    """False where no real inputs have shown how alike it answers."""

    def same(self, other: "Variant | None") -> bool:
        """Whether both are one file of one version."""
        return other is not None and (self.version, self.sha256) == (other.version, other.sha256)


Purpose = Literal["deploy", "set-budget", "recompress"]
"""Which command began it: a version that is to come, or more work on the one that serves."""


class Deployment(Words):
    """One command that changes what serves, on its way."""

    id: str
    version: int
    strategy: Strategy
    budget: Budget
    """As the command gave it."""
    minutes: float
    purpose: Purpose = "deploy"
    when: Literal["idle", "now"] = "now"
    """Whether the worker may work only while the device has nothing else to do."""
    recover_minutes: float = 0.0
    allow_unverified: bool = False
    priority: int = 0
    weight: float = 1.0
    collect_inputs: int = 0
    collect_minutes: float = 0.0
    collect_hours: float = 24.0
    observe_requests: int = 200
    observe_minutes: float = 0.0
    state: State = State.VERIFYING
    message: str = ""
    """Why it is where it is; of a rest state, the reason."""
    spent_s: float = 0.0
    """How long it was in its state before the last restart: a deadline is no matter of clocks."""
    ending: State | None = None
    """Where RESTORING leads."""
    reload: bool = False
    """It ended in the midst of a load: what the server runs may not be what the record says."""
    target: Variant | None = None
    """Where RESTORING is sent, if not to what serves."""
    began_with: Variant | None = None
    """What served when it began; it stays on the disk."""
    effective_budget: Budget | None = None
    """The command's over the manifest's over the device's, fixed when work begins."""
    original: Measurement | None = None
    """The original against itself: its cost, and the noise of this device."""
    turned_down: tuple[Sha256, ...] = ()
    """Rungs that admission refused or that failed to load."""
    chosen: Variant | None = None


class Record(Words):
    """All that persists of one model on this device."""

    model: str
    live: Variant | None = None
    """What serves now. A deployment under way does not change it before its switch."""
    previous: Variant | None = None
    """What served before the live one: the first way back after a crash."""
    before: Variant | None = None
    """What served before the last deployment that changed anything: where a rollback leads."""
    distrusted: tuple[Sha256, ...] = ()
    """Variants that failed here while they served: never chosen again, no way back."""
    deployment: Deployment | None = None

    def with_deployment(self, **changes: object) -> "Record":
        """This record, with its deployment's fields changed."""
        assert self.deployment is not None
        return self.model_copy(update={"deployment": self.deployment.model_copy(update=changes)})

    def is_in(self, *states: State) -> bool:
        """Whether its deployment is in one of these."""
        return self.deployment is not None and self.deployment.state in states


class Records:
    """The records in one folder."""

    def __init__(self, folder: Path) -> None:
        """Keep records in `folder`, which is made where it is missing."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, model: str) -> Path:
        return self._folder / f"{check_name(model, what='model name')}.json"

    def save(self, record: Record) -> None:
        """Make it durable before anybody acts on it.

        Raises:
            Unavailable: the disk is full or failing; what was saved before still holds.
        """
        try:
            durable.replace(self._path(record.model), record.to_json(), mode=0o600)
        except OSError as error:
            raise Unavailable(f"cannot keep the record of {record.model}: {error}") from error

    def load(self, model: str) -> Record:
        """The record of a model; an empty one where there is none.

        Raises:
            Corrupt: the file cannot be read as a record.
        """
        path = self._path(model)
        try:
            return Record.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return Record(model=model)
        except ValidationError as error:
            raise Corrupt(f"cannot read {path}: {explain(error)}") from error

    def all(self) -> tuple[list[Record], list[str]]:
        """Every record, and one sentence for each file that is damaged (it is set aside)."""
        records, damaged = [], []
        for path in sorted(self._folder.glob("*.json")):
            try:
                records.append(self.load(path.stem))
            except Corrupt as error:
                path.rename(path.with_suffix(".damaged"))
                damaged.append(f"{error}; set aside as {path.stem}.damaged")
        return records, damaged

    def remove(self, model: str) -> None:
        """Forget a model."""
        self._path(model).unlink(missing_ok=True)
