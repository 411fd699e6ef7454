"""The work of each state: a table of functions that take a record and return what came of it.

A step may run twice: it looks at what is there before it makes it again.
"""

from collections.abc import Awaitable, Callable

from agent.control import improving, starting
from agent.control.parts import Outcome, Parts, deployment_of
from agent.control.record import Record
from agent.control.states import Event, State
from agent.control.variants import load_request
from agent.errors import Refused


async def verify(record: Record, parts: Parts) -> Outcome:
    """Fetch and check the manifest, and keep it."""
    deployment = deployment_of(record)
    manifest = await parts.fetch_manifest(record.model, deployment.version)
    if (manifest.name, manifest.version) != (record.model, deployment.version):
        raise Refused(
            f"cannot deploy {record.model}@{deployment.version}: "
            f"the manifest is of {manifest.name}@{manifest.version}"
        )
    floor = record.live.version if record.live else 0
    if manifest.version < floor:
        raise Refused(
            f"cannot deploy {record.model}@{manifest.version}: older than {floor}, which serves"
        )
    parts.catalog.save_manifest(manifest)
    return Event.DONE, record


async def fetch(record: Record, parts: Parts) -> Outcome:
    """Bring every file of the version that is not here yet."""
    deployment = deployment_of(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    wanted = parts.catalog.files(manifest)
    total = sum(ref.size_bytes for ref, _ in wanted)
    before = 0
    for ref, path in wanted:
        if not parts.catalog.has(ref, path):

            def progress(done: int, _: int, before: int = before) -> None:
                parts.emit(
                    "progress", record, "pulling", stage="pull",
                    fraction=(before + done) / total, done_bytes=before + done, bytes=total,
                )  # fmt: skip

            await parts.fetch_file(ref, path, progress)
        before += ref.size_bytes
    return Event.DONE, record


async def restore(record: Record, parts: Parts) -> Outcome:
    """Make sure of what served before, and decide how the deployment ends."""
    deployment = deployment_of(record)
    live = record.live
    if live is None:
        await parts.unload(record.model)
    elif parts.served(record.model) != live.sha256:
        manifest = parts.catalog.manifest(record.model, live.version)
        await parts.load(load_request(record.model, live, manifest, parts))
    if live is not None and live.version == deployment.version:
        return Event.SETTLED, record
    return (Event.FAILED if deployment.ending == State.FAILED else Event.REFUSED), record


STEPS: dict[State, Callable[[Record, Parts], Awaitable[Outcome]]] = {
    State.VERIFYING: verify,
    State.FETCHING: fetch,
    State.STARTING: starting.start,
    State.COMPRESSING: improving.compress,
    State.TRYING: improving.try_out,
    State.SWITCHING: improving.switch,
    State.RESTORING: restore,
}
