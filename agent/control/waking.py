"""After a start: what served before serves again, and what nobody knows is swept away."""

import logging

from agent.control import ways_back
from agent.control.driving import Driver
from agent.control.parts import Parts
from agent.control.pauses import Pauses
from agent.control.record import Record
from agent.control.states import State
from agent.control.variants import load_request
from agent.errors import TrimtabError, Unavailable

log = logging.getLogger(__name__)


async def bring_back(record: Record, parts: Parts, troubles: list[str]) -> Record:
    """Load what served before the stop, or where that is damaged what served before it.

    `troubles` gets a sentence for each variant that cannot be loaded.
    """
    for variant in (*ways_back.order(record), *([record.live] if record.live else [])):
        try:
            manifest = parts.catalog.manifest(record.model, variant.version)
            await parts.load(load_request(record.model, variant, manifest, parts))
        except TrimtabError as error:
            told = f"cannot bring back {record.model} ({variant.label}): {error}"
            if told not in troubles:
                troubles.append(told)
        else:
            if record.deployment and record.deployment.state is State.RESTORING:
                return record  # its step tells which variant serves, and why
            return record.model_copy(update={"live": variant})
    return record


async def bring_back_later(model: str, driver: Driver, parts: Parts, retry_least_s: float) -> None:
    """Load what should serve, again and again while the device has no room for it."""
    pauses = Pauses(retry_least_s)
    while True:
        await pauses.rest()
        record = driver.known[model]
        assert record.live is not None
        try:
            manifest = parts.catalog.manifest(model, record.live.version)
            await parts.load(load_request(model, record.live, manifest, parts))
        except Unavailable as error:
            log.warning("%s: %s; trying again", model, error)
        except TrimtabError as error:
            parts.emit("crashed", record, f"cannot bring back {model}: {error}")
            return
        else:
            parts.emit("swapped", record, f"{record.live.label!r} serves again",
                       label=record.live.label, sha256=record.live.sha256)  # fmt: skip
            return


def sweep(driver: Driver, parts: Parts) -> None:
    """Free the disk of models that nobody knows: a kill came while they were removed."""
    for entry in parts.catalog.entries():
        if entry.name not in driver.known:
            parts.catalog.remove(entry.name, entry.version)


def tidy(model: str, driver: Driver, parts: Parts) -> None:
    """Free the disk of versions that are neither live nor a way back."""
    record = driver.known[model]
    kept = set(ways_back.pinned(record))
    if record.deployment and record.deployment.state is State.LIVE:
        kept.add(record.deployment.version)
    for entry in parts.catalog.entries():
        if entry.name == model and entry.version not in kept:
            parts.catalog.remove(model, entry.version)
