"""What a compression job or a trial can fail with; carried between processes as {kind, message}."""

from typing import ClassVar

NEEDS_TORCH = (
    "cannot recover: torch is not installed; pip install 'trimtab[recover]', in a source tree "
    "./dev setup --recover"
)
"""What is said where a job asks for recovery and the extra is missing."""


class CompressionError(Exception):
    """The base; its `kind` is what travels."""

    kind: ClassVar[str] = "internal"


class BadModel(CompressionError):
    """Not ONNX, truncated, invalid, or it does not run."""

    kind = "bad-model"


class BadInputs(CompressionError):
    """Calibration or evaluation inputs do not fit the model, or cannot be read."""

    kind = "bad-inputs"


class CannotRun(CompressionError):
    """A trial died: illegal instruction, memory, time. This is a measurement too."""

    kind = "cannot-run"


class OutOfBudget(CompressionError):
    """The job itself ran out of the memory, disk or minutes that it was given."""

    kind = "out-of-budget"


class Stopped(CompressionError):
    """Somebody asked for it to stop."""

    kind = "stopped"


_BY_KIND: dict[str, type[CompressionError]] = {
    kind.kind: kind
    for kind in (BadModel, BadInputs, CannotRun, OutOfBudget, Stopped, CompressionError)
}


def to_wire(error: BaseException) -> dict[str, str]:
    """Describe an error as `{kind, message}`; what is not a CompressionError is `internal`."""
    if isinstance(error, CompressionError):
        return {"kind": error.kind, "message": str(error)}
    return {"kind": "internal", "message": f"{type(error).__name__}: {error}"}


def from_wire(kind: str, message: str) -> CompressionError:
    """Make the error again on the other side; an unknown kind becomes the base class."""
    return _BY_KIND.get(kind, CompressionError)(message)
