"""Puts a variant in the server's hands, and remembers that it serves."""

from typing import Any

from agent.control import ways_back
from agent.control.parts import FORECAST, Parts
from agent.control.record import Record, Variant
from agent.errors import Refused, TrimtabError, Unavailable
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
        needs_mib=needs_mib(variant, manifest),
    )


def needs_mib(variant: Variant, manifest: Manifest) -> float:
    """Memory that loading a variant takes: as measured, or of an original as forecast."""
    if variant.measurement is not None:
        return variant.measurement.peak_memory_mib
    return forecast_mib(manifest)


def forecast_mib(manifest: Manifest) -> float:
    """Memory of an original that nobody has measured."""
    return manifest.files.model.size_bytes * FORECAST / 2**20


def room_mib(record: Record, parts: Parts) -> float:
    """Memory for a variant that takes over: what is free, and what the live one would give back.

    Where it does not fit beside the live one the server takes that out first, and puts it back if
    the new one fails. The server knows best what that frees: this is to refuse what is hopeless.
    """
    if record.live is None:
        return parts.available_mib()
    manifest = parts.catalog.manifest(record.model, record.live.version)
    return parts.available_mib() + needs_mib(record.live, manifest)


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


async def take_over(record: Record, variant: Variant, manifest: Manifest, parts: Parts) -> Record:
    """As `switch_to`, for a variant that nobody needs as much as what serves.

    Raises:
        Refused: what serves had to give way and could not be put back: it is what comes next.
    """
    served = parts.served(record.model)
    try:
        return await switch_to(record, variant, manifest, parts)
    except Unavailable as error:
        if served is not None and parts.served(record.model) is None:
            raise Refused(f"{error}; and what served could not be put back at once") from error
        raise


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
