"""How a file is to be run: as the ladder beside it says, with the threads that a person names."""

from pathlib import Path

from agent.errors import BadInput
from compression import ladder
from compression.errors import BadInputs
from compression.job import Runtime


def runtime(path: Path, *, threads: int | None) -> Runtime:
    """The runtime of a rung by the ladder.json in its folder; else the usual one, one thread.

    Raises:
        BadInput: it cannot have so many threads.
    """
    if threads is not None and not 1 <= threads <= 256:
        raise BadInput(f"cannot run with {threads} threads: 1 to 256")
    try:
        rungs = ladder.load(path.resolve().parent).rungs
    except BadInputs:  # it is not from a ladder
        rungs = ()
    found = next((rung.runtime for rung in rungs if rung.file == path.name), Runtime())
    return found if threads is None else found.model_copy(update={"threads": threads})
