"""The worker's job: what it is told, when it may work, and what the fleet hears of it."""

from functools import partial
from pathlib import Path
from typing import Any

from agent.control import ways_back
from agent.control.parts import Parts, deployment_of
from agent.control.record import Record
from agent.protocol.manifest import Manifest
from compression import report
from compression.findings import Rejected
from compression.job import CompressJob
from compression.stream import Progress, Tried


async def run(
    record: Record, manifest: Manifest, parts: Parts, *, calibration: Path | None, folder: Path
) -> None:
    """Have a ladder made in `folder`: now, or while the device is idle, as was asked.

    Raises:
        whatever parts.compress raises.
    """
    job = _job(record, manifest, parts, calibration=calibration, folder=folder)
    compress = partial(
        parts.compress, job,
        on_progress=partial(_tell_progress, record, parts),
        on_tried=partial(_tell_tried, record, parts),
    )  # fmt: skip
    if deployment_of(record).when == "now":
        async with parts.heavy:
            await compress()
        return
    tell = partial(parts.emit, "progress", record, stage="idle")
    async with parts.leisure.breaks(record, tell) as breaks:
        await compress(breaks=breaks)


def _job(
    record: Record, manifest: Manifest, parts: Parts, *, calibration: Path | None, folder: Path
) -> CompressJob:
    deployment = deployment_of(record)
    return CompressJob(
        model_name=record.model,
        model_path=str(parts.catalog.path(record.model, manifest.version, "model")),
        calibration_path=str(calibration) if calibration else None,
        evaluation_path=None,  # kept untouched, for the admission
        inputs=manifest.inputs,
        outputs=manifest.outputs,
        budget=deployment.effective_budget or deployment.budget,
        device_class=parts.device_class,
        out_dir=str(folder),
        minutes=deployment.minutes,
        recover_minutes=deployment.recover_minutes,
        work_memory_mib=parts.work_memory_mib,
        table_dir=str(parts.state_dir),
        keep=_in_use(record, folder, parts),
    )


def _in_use(record: Record, folder: Path, parts: Parts) -> tuple[str, ...]:
    """The files of the job's folder that serve, or may have to serve again."""
    known = (*ways_back.order(record), *([record.live] if record.live else []))
    files = [parts.absolute(path) for one in known for path in (one.path, one.probe) if path]
    return tuple(sorted({path.name for path in files if path.parent == folder}))


def _tell_progress(record: Record, parts: Parts, progress: Progress) -> None:
    parts.emit(
        "progress", record, progress.message, stage=progress.stage, fraction=progress.fraction
    )


def _tell_tried(record: Record, parts: Parts, tried: Tried) -> None:
    one = tried.rung or tried.rejected
    if one is None:
        labels = [left.recipe.label for left in tried.untried]
        parts.emit(
            "tried", record, report.untried(tried.untried),
            labels=labels, accepted=False, tried=False,
        )  # fmt: skip
        return
    figures: dict[str, Any] = {"label": one.recipe.label, "accepted": tried.rung is not None}
    if one.measurement:
        figures["measurement"] = one.measurement.model_dump(exclude_none=True)
    reason = one.reason if isinstance(one, Rejected) else "; ".join(one.misses)
    parts.emit("tried", record, reason, **figures)
