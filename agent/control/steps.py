"""The work of each state: a table of functions that take a record and return what came of it.

A step may run twice: it looks at what is there before it makes it again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.control import admission
from agent.control.record import Deployment, Record, Variant
from agent.control.states import Event, State
from agent.errors import Refused, Unavailable
from agent.protocol.manifest import FileRef, Manifest
from agent.protocol.private import LoadReply, LoadRequest
from agent.store.catalog import Catalog
from compression.job import (
    Budget,
    CompressJob,
    DeviceClass,
    Ladder,
    Measurement,
    Progress,
    Rung,
    Runtime,
    TrialJob,
    Tried,
)

TRIAL_SECONDS = 6.0
_FORECAST = 3.0
"""Memory of a model that nobody could measure (it came without inputs), per byte of its file:
weights, their prepacked copy, and activations. Deliberately high."""


class Compress(Protocol):
    """Runs one job to its ladder; see agent.host.compressor.compress."""

    def __call__(
        self,
        job: CompressJob,
        *,
        on_progress: Callable[[Progress], None],
        on_tried: Callable[[Tried], None],
    ) -> Awaitable[Ladder]: ...


class Emit(Protocol):
    """Tells the fleet what happened to a deployment."""

    def __call__(self, kind: str, record: Record, message: str = "", **figures: Any) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What the steps work with; `app` hands it in."""

    catalog: Catalog
    fetch_manifest: Callable[[str, int], Awaitable[Manifest]]
    fetch_file: Callable[[FileRef, Path, Callable[[int, int], None]], Awaitable[None]]
    trial: Callable[[TrialJob], Awaitable[Measurement]]
    compress: Compress
    load: Callable[[LoadRequest], Awaitable[LoadReply]]
    unload: Callable[[str], Awaitable[None]]
    served: Callable[[str], str | None]
    """The sha256 of what the server runs under a name."""
    index_of: Callable[[str], int]
    device_class: DeviceClass
    default_budget: Callable[[], Budget]
    available_mib: Callable[[], float]
    work_memory_mib: float
    emit: Emit
    heavy: asyncio.Lock
    """Held while something is measured or compressed: two at once would spoil both figures."""


Outcome = tuple[Event, Record]


def _deployment(record: Record) -> Deployment:
    assert record.deployment is not None
    return record.deployment


def _say(record: Record, event: Event, message: str) -> Outcome:
    return event, record.with_deployment(message=message)


async def verify(record: Record, parts: Parts) -> Outcome:
    """Fetch and check the manifest, and keep it."""
    deployment = _deployment(record)
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
    deployment = _deployment(record)
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


async def start(record: Record, parts: Parts) -> Outcome:
    """Measure the original, and let it serve where it fits and the strategy wants it."""
    deployment = _deployment(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    effective = deployment.budget.over(
        manifest.budget.over(Budget(min_agreement=manifest.min_agreement))
    ).over(parts.default_budget())
    record = record.with_deployment(effective_budget=effective)
    if deployment.strategy == "compress-first":
        return Event.DONE, record

    original = await _measure_original(record, manifest, effective, parts)
    reasons = _against_original(original, deployment, effective, manifest, parts)
    if reasons and deployment.strategy == "as-is":
        raise Refused(f"cannot admit {record.model}@{manifest.version}: {'; '.join(reasons)}")
    record = record.with_deployment(original=original)
    if reasons:
        return _say(record, Event.DONE, f"the original cannot serve: {'; '.join(reasons)}")

    variant = Variant(
        version=manifest.version,
        label="original",
        path=parts.catalog.relative(parts.catalog.model_path(manifest)),
        sha256=manifest.files.model.sha256,
        runtime=Runtime(threads=effective.threads or 1),
        measurement=original,
        meets_budget=None if original is None else _meets(original, effective),
    )
    record = await _switch(record, variant, manifest, parts)
    if deployment.strategy == "as-is":
        return _say(record, Event.SETTLED, "the original serves, as was asked")
    if manifest.files.calibration is None:
        return _say(
            record, Event.SETTLED, "the original serves; no calibration inputs came with it"
        )
    return Event.DONE, record


def _meets(measurement: Measurement, budget: Budget) -> bool:
    return admission.judge(measurement, budget, available_mib=float("inf")).admitted


async def _measure_original(
    record: Record, manifest: Manifest, budget: Budget, parts: Parts
) -> Measurement | None:
    inputs = parts.catalog.inputs_path(manifest)
    if inputs is None:
        return None
    model = str(parts.catalog.model_path(manifest))
    parts.emit("progress", record, "measuring the original", stage="measure", fraction=0.0)
    async with parts.heavy:
        return await parts.trial(
            TrialJob(
                candidate_path=model,
                original_path=model,
                inputs_path=str(inputs),
                outputs=manifest.outputs,
                runtime=Runtime(threads=budget.threads or 1),
                seconds=TRIAL_SECONDS,
            )
        )


def _against_original(
    original: Measurement | None,
    deployment: Deployment,
    effective: Budget,
    manifest: Manifest,
    parts: Parts,
) -> tuple[str, ...]:
    available = parts.available_mib()
    if original is None:
        need = manifest.files.model.size_bytes * _FORECAST / 2**20
        return () if need <= available else (
            f"needs about {need:.0f} MiB (forecast, not measured), {available:.0f} are available",
        )  # fmt: skip
    if deployment.strategy == "as-is":
        return admission.judge(original, deployment.budget, available_mib=available).reasons
    return admission.judge_original(original, effective, available_mib=available).reasons


async def compress(record: Record, parts: Parts) -> Outcome:
    """Have the worker make a ladder, and choose its best rung."""
    deployment = _deployment(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    if manifest.files.calibration is None:
        raise Refused(
            f"cannot compress {record.model}@{manifest.version}: no calibration inputs came with it"
        )
    job = CompressJob(
        model_name=record.model,
        model_path=str(parts.catalog.model_path(manifest)),
        calibration_path=str(parts.catalog.calibration_path(manifest)),
        evaluation_path=None,  # kept untouched, for the admission
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        budget=deployment.effective_budget or deployment.budget,
        device_class=parts.device_class,
        out_dir=str(parts.catalog.ladder_dir(manifest)),
        minutes=deployment.minutes,
        work_memory_mib=parts.work_memory_mib,
    )
    async with parts.heavy:
        await parts.compress(
            job,
            on_progress=lambda p: parts.emit(
                "progress", record, p.message, stage=p.stage, fraction=p.fraction
            ),
            on_tried=lambda t: _tell_tried(t, record, parts),
        )
    return _choose(record, manifest, parts)


def _tell_tried(tried: Tried, record: Record, parts: Parts) -> None:
    one = tried.rung or tried.rejected
    if one is None:
        return
    measured = one.measurement.model_dump(exclude_none=True) if one.measurement else None
    reason = (
        tried.rejected.reason
        if tried.rejected
        else "; ".join(tried.rung.misses if tried.rung else ())
    )
    figures: dict[str, Any] = {"label": one.recipe.label, "accepted": tried.rung is not None}
    parts.emit(
        "tried", record, reason, **figures, **({"measurement": measured} if measured else {})
    )


def _choose(record: Record, manifest: Manifest, parts: Parts) -> Outcome:
    """Take the best rung that meets the budget and was not turned down."""
    deployment = _deployment(record)
    offered = parts.catalog.ladder(manifest)
    rung = admission.next_rung(offered, deployment.turned_down)
    if rung is None:
        nearest = admission.nearest(offered)
        raise Refused(f"cannot fit {record.model}@{manifest.version} into its budget: {nearest}")
    chosen = _variant(rung, manifest, parts)
    return Event.DONE, record.with_deployment(chosen=chosen, message="")


def _variant(rung: Rung, manifest: Manifest, parts: Parts) -> Variant:
    folder = parts.catalog.ladder_dir(manifest)
    return Variant(
        version=manifest.version,
        label=rung.recipe.label,
        path=parts.catalog.relative(folder / rung.file),
        sha256=rung.sha256,
        runtime=rung.runtime,
        probe=parts.catalog.relative(folder / rung.probe) if rung.probe else None,
        measurement=rung.measurement,
        meets_budget=rung.meets_budget,
    )


async def try_out(record: Record, parts: Parts) -> Outcome:
    """Judge the chosen variant on inputs that neither calibrated nor chose, where they came."""
    deployment = _deployment(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    chosen, budget = deployment.chosen, deployment.effective_budget or deployment.budget
    assert chosen is not None
    assert chosen.measurement is not None
    if record.live and record.live.sha256 == chosen.sha256:
        live = record.live.model_copy(update={"meets_budget": True})
        record = record.model_copy(update={"live": live})
        return _say(record, Event.SETTLED, f"{chosen.label!r} meets the budget and serves already")

    measurement = chosen.measurement
    if manifest.files.evaluation is not None:
        async with parts.heavy:
            measurement = await parts.trial(
                TrialJob(
                    candidate_path=str(parts.catalog.absolute(chosen.path)),
                    original_path=str(parts.catalog.model_path(manifest)),
                    inputs_path=str(parts.catalog.evaluation_path(manifest)),
                    split="evaluation",
                    outputs=manifest.outputs,
                    runtime=chosen.runtime,
                    seconds=TRIAL_SECONDS,
                )
            )
    verdict = admission.judge(measurement, budget, available_mib=parts.available_mib())
    if not verdict.admitted:
        why = f"cannot admit {chosen.label!r}: {'; '.join(verdict.reasons)}"
        parts.emit("tried", record, why, label=chosen.label, accepted=False,
                   measurement=measurement.model_dump(exclude_none=True))  # fmt: skip
        turned_down = (*deployment.turned_down, chosen.sha256)
        record = record.with_deployment(turned_down=turned_down, message=why)
        _, record = _choose(record, manifest, parts)
        return Event.AGAIN, record
    return Event.DONE, record.with_deployment(
        chosen=chosen.model_copy(update={"measurement": measurement})
    )


async def switch(record: Record, parts: Parts) -> Outcome:
    """Let the chosen variant take over from what serves."""
    deployment = _deployment(record)
    assert deployment.chosen is not None
    manifest = parts.catalog.manifest(record.model, deployment.version)
    record = await _switch(record, deployment.chosen, manifest, parts)
    return _say(record, Event.DONE, f"{deployment.chosen.label!r} serves")


async def _switch(record: Record, variant: Variant, manifest: Manifest, parts: Parts) -> Record:
    reply = await parts.load(load_request(record.model, variant, manifest, parts))
    previous = (
        record.live if record.live and record.live.sha256 != variant.sha256 else record.previous
    )
    record = record.model_copy(update={"live": variant, "previous": previous})
    measured = variant.measurement
    parts.emit(
        "swapped", record, f"{variant.label!r} serves",
        label=variant.label, sha256=variant.sha256, **reply.model_dump(exclude_none=True),
        **({"measurement": measured.model_dump(exclude_none=True)} if measured else {}),
    )  # fmt: skip
    return record


def load_request(model: str, variant: Variant, manifest: Manifest, parts: Parts) -> LoadRequest:
    """What the server is told about a variant."""
    return LoadRequest(
        name=model,
        version=variant.version,
        path=str(parts.catalog.absolute(variant.path)),
        sha256=variant.sha256,
        index=parts.index_of(model),
        runtime=variant.runtime,
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        probe_path=str(parts.catalog.absolute(variant.probe)) if variant.probe else None,
    )


async def restore(record: Record, parts: Parts) -> Outcome:
    """Make sure of what served before, and decide how the deployment ends."""
    deployment = _deployment(record)
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
    State.STARTING: start,
    State.COMPRESSING: compress,
    State.TRYING: try_out,
    State.SWITCHING: switch,
    State.RESTORING: restore,
}

__all__ = ["STEPS", "Emit", "Parts", "Unavailable", "load_request"]
