"""RESTORING: what served before is made sure of, or what the device is sent back to."""

from agent.control import ways_back
from agent.control.parts import Outcome, Parts, deployment_of, say
from agent.control.record import Record, Variant
from agent.control.states import Event, State
from agent.control.variants import load_request, switch_to
from agent.errors import Corrupt, TrimtabError, Unavailable
from agent.protocol.manifest import Manifest


async def restore(record: Record, parts: Parts) -> Outcome:
    """Serve the first that can of where it is sent, what serves and what served before.

    The deployment ends live where something of its own version serves in the end.
    """
    deployment = deployment_of(record)
    was, wanted = record.live, deployment.target
    record, variant = await _serve(record, parts)
    if variant is None:
        await parts.unload(record.model)
        record = record.model_copy(update={"live": None})
        return (Event.REFUSED if deployment.ending == State.REFUSED else Event.FAILED), record
    message = deployment.message
    if was is not None and not variant.same(was):
        message = f"{message}; {variant.label!r} of version {variant.version} serves again"
    if wanted is not None and not wanted.same(variant):
        return say(record, Event.FAILED, f"{message}, because {wanted.label!r} cannot")
    if variant.version == deployment.version:
        return say(record, Event.SETTLED, message)
    failed = deployment.ending == State.FAILED
    return say(record, Event.FAILED if failed else Event.REFUSED, message)


async def _serve(record: Record, parts: Parts) -> tuple[Record, Variant | None]:
    deployment, live = deployment_of(record), record.live
    for variant in ways_back.order(record):
        is_live = variant.same(live)
        if is_live and not deployment.reload and parts.served(record.model) == variant.sha256:
            return record, variant
        try:
            manifest = _manifest(record.model, variant, parts)
            if not is_live:
                return await switch_to(record, variant, manifest, parts), variant
            await parts.load(load_request(record.model, variant, manifest, parts))
        except Unavailable:
            raise  # tried again: there may be room in a moment
        except TrimtabError as error:
            parts.emit("crashed", record, f"cannot restore {variant.label!r}: {error}")
        else:
            return record, variant
    return record, None


def _manifest(model: str, variant: Variant, parts: Parts) -> Manifest:
    try:
        return parts.catalog.manifest(model, variant.version)
    except Unavailable as error:  # it will not come by waiting
        raise Corrupt(str(error)) from error
