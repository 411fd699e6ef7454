"""The work of each state: a table of functions that take a record and return what came of it.

A step may run twice: it looks at what is there before it makes it again.
"""

import re
from collections.abc import Awaitable, Callable

from agent.control import collecting, improving, observing, restoring, starting, ways_back
from agent.control.parts import Outcome, Parts, deployment_of
from agent.control.record import Record
from agent.control.states import Event, State
from agent.errors import Refused
from agent.protocol import manifest as manifests
from agent.protocol.manifest import FileRef, Manifest
from agent.version import __version__


async def verify(record: Record, parts: Parts) -> Outcome:
    """Fetch and check the manifest, and keep it."""
    deployment = deployment_of(record)
    name, version = record.model, deployment.version
    payload = await parts.fetch_manifest(name, version)
    manifest = manifests.parse(payload)
    if (manifest.name, manifest.version) != (name, version):
        raise Refused(
            f"cannot deploy {name}@{version}: the manifest is of {manifest.name}@{manifest.version}"
        )
    if _release(manifest.least_agent_version) > _release(__version__):
        raise Refused(
            f"cannot deploy {name}@{version}: it needs agent {manifest.least_agent_version}, "
            f"this one is {__version__}"
        )
    if record.live is not None and version < record.live.version:
        raise Refused(
            f"cannot deploy {name}@{version}: older than {record.live.version}, which serves"
        )
    kept = _kept(record, parts)
    if kept is not None and kept.files.model.sha256 != manifest.files.model.sha256:
        raise Refused(
            f"cannot deploy {name}@{version}: published again with another model "
            f"({manifest.files.model.sha256[:12]}, here {kept.files.model.sha256[:12]}); "
            "a changed model needs a new version"
        )
    parts.catalog.begin(payload)
    return Event.DONE, record


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without what follows them (`1.2.0.dev3`: 1, 2, 0, 3)."""
    return tuple(int(number) for number in re.findall(r"\d{1,9}", version))


def _kept(record: Record, parts: Parts) -> Manifest | None:
    """The manifest of this version that is here, where something of it serves."""
    version = deployment_of(record).version
    kept = version in ways_back.pinned(record)
    return parts.catalog.manifest(record.model, version) if kept else None


async def fetch(record: Record, parts: Parts) -> Outcome:
    """Bring every file of the version that is not here yet."""
    missing = parts.catalog.missing(record.model, deployment_of(record).version)
    total = sum(ref.size_bytes for ref in missing.values())
    before = 0
    for path, ref in missing.items():

        def progress(
            chunks: int, of: int, *, start: int = before, ref: FileRef = ref, name: str = path.name
        ) -> None:
            done = start + ref.size_bytes * chunks // max(of, 1)
            parts.emit(
                "progress", record, f"pulling {name}", stage="pull",
                fraction=done / total, done_bytes=done, bytes=total,
            )  # fmt: skip

        await parts.fetch_file(ref, path, progress)
        before += ref.size_bytes
    return Event.DONE, record


STEPS: dict[State, Callable[[Record, Parts], Awaitable[Outcome]]] = {
    State.VERIFYING: verify,
    State.FETCHING: fetch,
    State.STARTING: starting.start,
    State.COLLECTING: collecting.collect,
    State.COMPRESSING: improving.compress,
    State.TRYING: improving.try_out,
    State.SWITCHING: improving.switch,
    State.OBSERVING: observing.observe,
    State.RESTORING: restoring.restore,
}
