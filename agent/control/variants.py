"""Puts a variant in the server's hands, and remembers that it serves."""

from typing import Any

from agent.control.parts import Parts
from agent.control.record import Record, Variant
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
    )


async def switch_to(record: Record, variant: Variant, manifest: Manifest, parts: Parts) -> Record:
    """Load a variant beside what serves and switch to it; the record then says so."""
    reply = await parts.load(load_request(record.model, variant, manifest, parts))
    replaced = record.live is not None and record.live.sha256 != variant.sha256
    previous = record.live if replaced else record.previous
    record = record.model_copy(update={"live": variant, "previous": previous})
    figures: dict[str, Any] = reply.model_dump(exclude_none=True)
    if variant.measurement:
        figures["measurement"] = variant.measurement.model_dump(exclude_none=True)
    figures |= {"label": variant.label, "sha256": variant.sha256}
    parts.emit("swapped", record, serves(variant), **figures)
    return record


def serves(variant: Variant) -> str:
    """Say that a variant serves, and on whose word where nothing has verified it."""
    doubt = "" if variant.verified else ", unverified, as was allowed: no real inputs judged it"
    return f"{variant.label!r} serves{doubt}"
