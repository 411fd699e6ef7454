"""What a controller asks of a device; a table of command kinds, read strictly."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from agent.errors import BadInput
from compression.job import Budget
from compression.words import Words, explain

Strategy = Literal["improve", "compress-first", "as-is"]
MAX_BYTES = 8 * 1024


class Deploy(Words):
    """Pull a version, make it fit and serve it.

    `improve`: the original serves as soon as it fits, then a better variant takes over.
    `compress-first`: nothing serves until a variant fits. `as-is`: never compress.
    `allow_unverified`: let a variant serve although no real inputs have shown how alike it
    answers, because none came with the model.

    Where no inputs came, `collect_inputs` real ones (0: none) are kept on the device, spread over
    at least `collect_minutes` and waited for at most `collect_hours`. A new variant is observed
    until `observe_requests` live answers were compared or `observe_minutes` (0: not) are over.

    Where the models of a device do not fit together, those of the lowest `priority` step down to
    smaller rungs first, among equals the one that takes most for its `weight`.
    """

    kind: Literal["deploy"] = "deploy"
    model: str
    version: Annotated[int, Field(ge=1)]
    budget: Budget = Budget()
    strategy: Strategy = "improve"
    minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 10.0
    allow_unverified: bool = False
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    collect_inputs: Annotated[int, Field(ge=0, le=2000)] = 200
    collect_minutes: Annotated[float, Field(ge=0, le=7 * 24 * 60)] = 10.0
    collect_hours: Annotated[float, Field(gt=0, le=7 * 24)] = 24.0
    observe_requests: Annotated[int, Field(ge=1, le=100_000)] = 200
    observe_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 10.0


class Rollback(Words):
    """Serve again what served before the last deployment, or the `version` that is named.

    It is on the device, so no network is needed.
    """

    kind: Literal["rollback"] = "rollback"
    model: str
    version: Annotated[int, Field(ge=1)] | None = None


class Forget(Words):
    """Delete the live inputs that were collected of a model, and stop the work on them."""

    kind: Literal["forget-inputs"] = "forget-inputs"
    model: str


class Remove(Words):
    """Stop serving a model and forget its files."""

    kind: Literal["remove"] = "remove"
    model: str


class Cancel(Words):
    """Stop the work on a model's deployment; what serves goes on serving."""

    kind: Literal["cancel"] = "cancel"
    model: str


class SetBudget(Words):
    """Let what serves of a model keep another budget, in the place of the deploy command's.

    The best variant on the device that meets it takes over; where none does, more are made.
    """

    kind: Literal["set-budget"] = "set-budget"
    model: str
    budget: Budget
    minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 10.0
    observe_requests: Annotated[int, Field(ge=1, le=100_000)] = 200
    observe_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 10.0


class Recompress(Words):
    """Make variants of what serves anew, on live inputs; one that is better takes over.

    `when`: `idle` works only while the device has nothing else to do, `now` at once. Up to
    `collect_inputs` live requests calibrate (0: those that are here, or came with the model).
    `recover_minutes` train variants on them, where the device can (0: not).
    """

    kind: Literal["recompress"] = "recompress"
    model: str
    when: Literal["idle", "now"] = "idle"
    minutes: Annotated[float, Field(gt=0, le=24 * 60)] = 10.0
    recover_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 0.0
    collect_inputs: Annotated[int, Field(ge=0, le=2000)] = 200
    collect_minutes: Annotated[float, Field(ge=0, le=7 * 24 * 60)] = 10.0
    collect_hours: Annotated[float, Field(gt=0, le=7 * 24)] = 24.0
    observe_requests: Annotated[int, Field(ge=1, le=100_000)] = 200
    observe_minutes: Annotated[float, Field(ge=0, le=24 * 60)] = 10.0


class Infer(Words):
    """Answer one request to a model: small tensors, as Open Inference Protocol JSON.

    At most 8 KiB either way. A device handles one command at a time, so it waits only so long.
    """

    kind: Literal["infer"] = "infer"
    model: str
    version: Annotated[int, Field(ge=1)] | None = None
    request: dict[str, Any]
    timeout_s: Annotated[float, Field(gt=0, le=10)] = 2.0


class Describe(Words):
    """Answer with the device, its budget, its models and their ladders."""

    kind: Literal["describe"] = "describe"


class Ping(Words):
    """Answer at once."""

    kind: Literal["ping"] = "ping"


Body = Annotated[
    Deploy | SetBudget | Recompress | Rollback | Remove | Cancel | Forget | Infer | Describe | Ping,
    Field(discriminator="kind"),
]
KINDS = (
    "deploy", "set-budget", "recompress", "rollback", "remove", "cancel", "forget-inputs", "infer",
    "describe", "ping",
)  # fmt: skip


class Command(Words):
    """One command: the same id gets the same answer; after `expires_at_s` it is not obeyed.

    `audience` (`device/ID` or `group/NAME`) is inside what is signed, so that a command for
    one device cannot be replayed to another. Times are seconds since 1970, UTC.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{8,64}$")]
    audience: Annotated[str, Field(max_length=80)]
    issued_at_s: float
    expires_at_s: float
    body: Body


def parse(payload: bytes) -> Command:
    """Read a command from the payload of a verified envelope.

    Raises:
        BadInput: too long, an unknown kind or field (named), or a value out of range.
    """
    if len(payload) > MAX_BYTES:
        raise BadInput(f"cannot accept a command of {len(payload)} bytes: at most {MAX_BYTES}")
    try:
        return Command.model_validate_json(payload)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            if item["type"] == "union_tag_invalid":
                kind = str(item["ctx"].get("tag", ""))[:40]
                known = ", ".join(KINDS)
                raise BadInput(f"cannot obey command {kind!r}: known are {known}") from error
        raise BadInput(f"cannot read the command: {explain(error)}") from error
