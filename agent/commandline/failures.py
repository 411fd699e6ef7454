"""A compression error as the error of the tree that has the right exit code."""

from agent.errors import BadInput, Refused, TrimtabError, Unavailable
from compression import errors

_TABLE: tuple[tuple[type[errors.CompressionError], type[TrimtabError]], ...] = (
    (errors.BadModel, BadInput),
    (errors.BadInputs, BadInput),
    (errors.CannotRun, Refused),
    (errors.OutOfBudget, Unavailable),
    (errors.Stopped, Unavailable),
)


def as_exit_error(error: errors.CompressionError) -> TrimtabError:
    """The same message, as what the command line ends with."""
    for kind, exit_kind in _TABLE:
        if isinstance(error, kind):
            return exit_kind(str(error))
    return TrimtabError(str(error))
