"""COLLECTING: no inputs came with a model, so some that it is asked live are kept on the device."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from agent.control.parts import Outcome, Parts, deployment_of, say
from agent.control.record import Deployment, Record
from agent.control.states import Event
from agent.errors import Unavailable
from agent.protocol.capturing import SUFFIX, CaptureOrder, CaptureStatus, GatherJob
from agent.protocol.manifest import Manifest

LEAST_INPUTS = 24
"""Fewer would neither calibrate nor show anything."""
_DONE = "complete"


def possible(record: Record, manifest: Manifest, parts: Parts) -> bool:
    """Whether what serves takes the inputs that are wanted, so that they can be kept."""
    if record.live is None or not deployment_of(record).collect_inputs:
        return False
    if record.live.version == manifest.version:
        return True
    return parts.catalog.manifest(record.model, record.live.version).inputs == manifest.inputs


def over(deployment: Deployment, status: CaptureStatus, elapsed_s: float) -> bool:
    """Whether to wait no longer: enough, spread over the time asked for, or the deadline (pure)."""
    if elapsed_s >= deployment.collect_hours * 3600:
        return True
    enough = status.kept >= deployment.collect_inputs or _full(status, CaptureOrder)
    return enough and elapsed_s >= deployment.collect_minutes * 60


def _full(status: CaptureStatus, order: type[CaptureOrder]) -> bool:
    most_bytes = order.model_fields["most_bytes"].default
    return status.kept >= LEAST_INPUTS and status.kept_bytes > 0.95 * most_bytes


async def collect(record: Record, parts: Parts) -> Outcome:
    """Have the server keep a sample of what it is asked until there is enough, or time is over."""
    deployment = deployment_of(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    folder = _folder(record, parts)
    if (folder / _DONE).exists():  # by an earlier deployment of this version
        return Event.DONE, record
    if not possible(record, manifest, parts):
        return _without(record, manifest, "what serves takes other inputs")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    order = _order(record, folder, parts)
    began_s = parts.clock() - deployment.spent_s
    while True:
        status = await parts.capture(order)
        elapsed_s = parts.clock() - began_s
        _tell(record, status, elapsed_s, parts)
        if status.cannot or over(deployment, status, elapsed_s):
            break
        await asyncio.sleep(parts.poll_s)
    await parts.capture(order.model_copy(update={"most": 0}))
    if status.cannot or status.kept < LEAST_INPUTS:
        why = status.cannot or (
            f"{status.kept} live inputs came in {elapsed_s / 3600:.1f} h, "
            f"at least {LEAST_INPUTS} are needed"
        )
        return _without(record, manifest, why)
    (folder / _DONE).touch()
    cost = status.spent_s / max(status.elapsed_s, 1e-9)
    message = f"{status.kept} live inputs of {status.seen} were kept, at {cost:.2%} of the time"
    return say(record, Event.DONE, message)


def _without(record: Record, manifest: Manifest, why: str) -> Outcome:
    if deployment_of(record).purpose == "recompress" and manifest.files.calibration is not None:
        return say(record, Event.DONE, f"{why}: those that came with it calibrate")
    live = record.live
    if live is not None and live.version == manifest.version:
        label = "the original" if live.label == "original" else repr(live.label)
        return say(record, Event.SETTLED, f"{label} serves; {why}")
    return say(record, Event.REFUSED, f"cannot compress {record.model}@{manifest.version}: {why}")


def _order(record: Record, folder: Path, parts: Parts) -> CaptureOrder:
    return CaptureOrder(
        name=record.model,
        kind="reservoir",
        folder=str(folder),
        most=deployment_of(record).collect_inputs,
        key_file=str(parts.key_file) if parts.key_file else None,
    )


def _tell(record: Record, status: CaptureStatus, elapsed_s: float, parts: Parts) -> None:
    deployment = deployment_of(record)
    left_h = deployment.collect_hours - elapsed_s / 3600
    parts.emit(
        "progress", record,
        f"{status.kept} of {deployment.collect_inputs} live inputs, {left_h:.1f} h left",
        stage="collect", fraction=min(1.0, status.kept / max(deployment.collect_inputs, 1)),
        kept=status.kept, seen=status.seen, bytes=status.kept_bytes, hours_left=left_h,
    )  # fmt: skip


def _folder(record: Record, parts: Parts) -> Path:
    return collected(record.model, deployment_of(record).version, parts)


def collected(model: str, version: int, parts: Parts) -> Path:
    """Where live inputs of one version are kept; only on this device."""
    return parts.catalog.folder(model, version) / "collected"


def complete(model: str, version: int, parts: Parts) -> bool:
    """Whether as many were collected as were asked for, or as came in time."""
    return (collected(model, version, parts) / _DONE).exists()


def any_inputs(model: str, manifest: Manifest, parts: Parts) -> bool:
    """Whether there are inputs to calibrate with, by whatever way."""
    return manifest.files.calibration is not None or complete(model, manifest.version, parts)


async def forget(model: str, parts: Parts) -> int:
    """Delete what was collected of a model; how many requests that were."""
    with contextlib.suppress(Unavailable):  # a server that is down keeps nothing
        end = CaptureOrder(name=model, kind="reservoir", folder=str(parts.private_dir), most=0)
        await parts.capture(end)
    count = 0
    for entry in parts.catalog.entries():
        if entry.name == model:
            folder = collected(model, entry.version, parts)
            count += len(list(folder.glob(f"*{SUFFIX}")))
            shutil.rmtree(folder, ignore_errors=True)
    return count


@contextlib.asynccontextmanager
async def gathered(record: Record, manifest: Manifest, parts: Parts) -> AsyncIterator[Path | None]:
    """The collected inputs as one .npz for the time of a job, or None where there are none.

    Where a key seals them at rest, the plain file lies in memory only (/dev/shm).

    Raises:
        Unavailable: the child that gathers them died.
    """
    folder = _folder(record, parts)
    if not (folder / _DONE).exists():
        yield None
        return
    beside = parts.private_dir if parts.key_file else folder.parent
    path = beside / f"{record.model}-collected.npz"
    job = GatherJob(
        folder=str(folder),
        out=str(path),
        inputs=manifest.inputs,
        key_file=str(parts.key_file) if parts.key_file else None,
    )
    try:
        found = await parts.gather(job)
        if found.samples < LEAST_INPUTS:  # the disk lost them: they come again
            (folder / _DONE).unlink(missing_ok=True)
            raise Unavailable(f"cannot use {found.samples} collected inputs: too few are whole")
        yield path
    finally:
        path.unlink(missing_ok=True)
