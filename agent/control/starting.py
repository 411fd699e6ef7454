"""STARTING: the original is measured, and serves where it fits."""

from agent.control import admission, budgets, collecting, neighbours
from agent.control.parts import TRIAL_SECONDS, Outcome, Parts, deployment_of, say
from agent.control.record import Record, Variant
from agent.control.states import Event
from agent.control.variants import forecast_mib, room_mib, take_over
from agent.errors import Refused
from agent.protocol.manifest import Manifest
from compression.errors import CannotRun
from compression.findings import Measurement
from compression.job import Budget, Runtime, TrialJob


async def start(record: Record, parts: Parts) -> Outcome:
    """Measure the original, and let it serve where it fits and the strategy wants it."""
    deployment = deployment_of(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    effective = budgets.effective(deployment.budget, record, manifest, parts)
    record = record.with_deployment(effective_budget=effective)
    calibration, allowed = manifest.files.calibration is not None, deployment.allow_unverified
    without = admission.needs_inputs(calibration=calibration, allow_unverified=allowed)
    if deployment.strategy == "compress-first":
        return _go_on(record, manifest, parts, without=without), record

    original = await _measure_original(record, manifest, effective, parts)
    async with parts.arranging:
        return await _start_original(record, manifest, original, effective, parts, without=without)


async def _start_original(
    record: Record,
    manifest: Manifest,
    original: Measurement | None,
    effective: Budget,
    parts: Parts,
    *,
    without: bool,
) -> Outcome:
    """Let the original serve where it fits. For one that stays, others may have to step down."""
    deployment = deployment_of(record)
    reasons = _against_original(original, record, effective, manifest, parts)
    reasons = reasons or await neighbours.make_room(
        record, original, parts, asking=deployment.strategy == "as-is",
        forecast_mib=forecast_mib(manifest),
    )  # fmt: skip
    if reasons and deployment.strategy == "as-is":
        raise Refused(f"cannot admit {record.model}@{manifest.version}: {'; '.join(reasons)}")
    record = record.with_deployment(original=original)
    if reasons:
        event = _go_on(record, manifest, parts, without=without)
        return say(record, event, f"the original cannot serve: {'; '.join(reasons)}")

    variant = Variant(
        version=manifest.version,
        label="original",
        path=parts.relative(parts.catalog.path(record.model, manifest.version, "model")),
        sha256=manifest.files.model.sha256,
        runtime=Runtime(threads=effective.threads or 1),
        measurement=original,
        meets_budget=None if original is None else _meets(original, effective, parts),
    )
    record = await take_over(record, variant, manifest, parts)
    if deployment.strategy == "as-is":
        return say(record, Event.SETTLED, "the original serves, as was asked")
    event = _go_on(record, manifest, parts, without=without)
    if without and event is Event.DONE:
        return say(record, Event.SETTLED, "the original serves; no calibration inputs came with it")
    return event, record


def _go_on(record: Record, manifest: Manifest, parts: Parts, *, without: bool) -> Event:
    """What follows: live inputs are collected first where none came and somebody may bring them."""
    collecting_helps = without and collecting.possible(record, manifest, parts)
    return Event.WITHOUT_INPUTS if collecting_helps else Event.DONE


def _meets(measurement: Measurement, budget: Budget, parts: Parts) -> bool:
    cores = parts.device_class.cores
    return admission.judge(measurement, budget, available_mib=float("inf"), cores=cores).admitted


async def _measure_original(
    record: Record, manifest: Manifest, budget: Budget, parts: Parts
) -> Measurement | None:
    files = manifest.files
    which = "calibration" if files.calibration else "evaluation" if files.evaluation else None
    if which is None:
        return None
    inputs = parts.catalog.path(record.model, manifest.version, which)
    model = str(parts.catalog.path(record.model, manifest.version, "model"))
    parts.emit("progress", record, "measuring the original", stage="measure", fraction=0.0)
    job = TrialJob(
        candidate_path=model, original_path=model, inputs_path=str(inputs), inputs=manifest.inputs,
        outputs=manifest.outputs, runtime=Runtime(threads=budget.threads or 1),
        seconds=TRIAL_SECONDS,
    )  # fmt: skip
    try:
        async with parts.heavy:
            return await parts.trial(job)
    except CannotRun as error:
        # A trial holds the model twice, beside what serves. It is the first to die of that.
        if parts.available_mib() >= 2 * forecast_mib(manifest):
            raise
        parts.emit(
            "progress", record, f"not measured, for want of memory: {error}", stage="forecast"
        )
        return None


def _against_original(
    original: Measurement | None,
    record: Record,
    effective: Budget,
    manifest: Manifest,
    parts: Parts,
) -> tuple[str, ...]:
    available, cores = room_mib(record, parts), parts.device_class.cores
    if original is None:
        need = forecast_mib(manifest)
        short = (
            f"needs about {need:.0f} MiB (forecast, not measured), {available:.0f} are available"
        )
        return () if need <= available else (short,)
    deployment = deployment_of(record)
    as_is = deployment.strategy == "as-is"
    judge = admission.judge if as_is else admission.judge_original
    budget = deployment.budget if as_is else effective
    return judge(original, budget, available_mib=available, cores=cores).reasons
