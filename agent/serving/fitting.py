"""Whether a model fits in memory beside what serves, or only in its place (pure)."""

from typing import Literal

from agent.errors import Unavailable
from agent.protocol.private import LoadRequest

UNMEASURED = 2.0
"""Memory for each byte of a file that nobody has measured: the weights, and once more while they
are unpacked."""


def choose(
    request: LoadRequest, *, file_mib: float, available_mib: float, replaced_mib: float | None
) -> Literal["beside", "replace"]:
    """How to swap. `replaced_mib` is what the model that serves would free; None: none serves.

    Raises:
        Unavailable: it fits neither way; the message has the figures.
    """
    needs_mib = request.needs_mib or file_mib * UNMEASURED
    beside = request.swap != "replace" or replaced_mib is None
    if beside and needs_mib <= available_mib:
        return "beside"
    total_mib = available_mib + (replaced_mib or 0.0)
    may_replace = request.swap != "beside" and replaced_mib is not None
    if may_replace and needs_mib <= total_mib:
        return "replace"
    measured = "" if request.needs_mib else " (forecast, not measured)"
    freed = f", {total_mib:.0f} MiB with what it replaces" if may_replace else ""
    raise Unavailable(
        f"cannot load {request.name}: it needs about {needs_mib:.0f} MiB{measured}, "
        f"{available_mib:.0f} MiB are available{freed}"
    )
