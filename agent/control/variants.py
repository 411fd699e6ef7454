"""Puts a variant in the server's hands, and remembers that it serves."""

from typing import Any

from agent.control import ways_back
from agent.control.parts import Parts
from agent.control.record import Record, Variant
from agent.errors import TrimtabError, Unavailable
from agent.protocol.manifest import Manifest
from agent.protocol.private import LoadRequest


def load_request(model: str, variant: Variant, manifest: Manifest, parts: Parts) -> LoadRequest:
    """What the server is told about a variant."""
    return LoadRequest(
        name=model,
        version=variant.version,
        path=str(parts.absolute(variant.path)),
        sha256=variant.sha256,
        index=1,  # the supervisor gives each load its own
        runtime=variant.runtime,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        probe_path=str(parts.absolute(variant.probe)) if variant.probe else None,
        needs_mib=variant.measurement.peak_memory_mib if variant.measurement else None,
    )


def room_mib(record: Record, parts: Parts) -> float:
    """Memory for a variant that takes over: what is free, and what the live one would give back.

    Where it does not fit beside the live one the server takes that out first, and puts it back if
    the new one fails.
    """
    live = record.live.measurement if record.live else None
    return parts.available_mib() + (live.peak_memory_mib if live else 0.0)


async def switch_to(record: Record, variant: Variant, manifest: Manifest, parts: Parts) -> Record:
    """Load a variant beside what serves and switch to it; the record then says so."""
    reply = await parts.load(load_request(record.model, variant, manifest, parts))
    record = ways_back.serving(record, variant)
    figures: dict[str, Any] = reply.model_dump(exclude_none=True)
    if variant.measurement:
        figures["measurement"] = variant.measurement.model_dump(exclude_none=True)
    figures |= {"label": variant.label, "sha256": variant.sha256}
    parts.emit("swapped", record, serves(variant), **figures)
    return record


async def fall_back(record: Record, parts: Parts) -> Record:
    """Serve what served before the live variant, which the server gave up.

    Raises:
        Unavailable: the server does not answer, or there is no memory now.
    """
    for variant in ways_back.others(record):
        try:
            manifest = parts.catalog.manifest(record.model, variant.version)
            return await switch_to(record, variant, manifest, parts)
        except Unavailable:
            raise
        except TrimtabError as error:
            parts.emit("crashed", record, f"cannot fall back to {variant.label!r}: {error}")
    parts.emit("crashed", record, f"cannot serve {record.model}: no variant is left")
    return record.model_copy(update={"live": None})


def serves(variant: Variant) -> str:
    """Say that a variant serves, and on whose word where nothing has verified it."""
    doubt = "" if variant.verified else ", unverified, as was allowed: no real inputs judged it"
    return f"{variant.label!r} serves{doubt}"
