"""A rung of a ladder on this device, as the variant that serves."""

from pathlib import Path

from agent.control.parts import Parts
from agent.control.record import Variant
from compression.findings import Rung


def variant(rung: Rung, *, version: int, folder: Path, parts: Parts) -> Variant:
    """The variant that a rung of the ladder in `folder` is."""
    return Variant(
        version=version,
        label=rung.recipe.label,
        path=parts.relative(folder / rung.file),
        sha256=rung.sha256,
        runtime=rung.runtime,
        probe=_probe(rung, folder, parts),
        measurement=rung.measurement,
        meets_budget=True,
        verified=rung.verified,
    )


def _probe(rung: Rung, folder: Path, parts: Parts) -> str | None:
    """What proves a load; none where it was deleted for the inputs that it holds."""
    if rung.probe is None or not (folder / rung.probe).exists():
        return None
    return parts.relative(folder / rung.probe)
