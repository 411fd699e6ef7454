"""COMPRESSING, TRYING and SWITCHING: a better variant is made, judged and put to work."""

from pathlib import Path

from agent.control import admission, collecting, jobs, neighbours, reworking, rungs
from agent.control.parts import TRIAL_SECONDS, Outcome, Parts, deployment_of, say
from agent.control.record import Record
from agent.control.states import Event
from agent.control.variants import room_mib, serves, take_over
from agent.errors import Refused
from agent.protocol.manifest import Manifest
from compression import ladder
from compression.findings import Rung
from compression.job import TrialJob


async def compress(record: Record, parts: Parts) -> Outcome:
    """Have the worker make a ladder, and choose its best rung."""
    deployment = deployment_of(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    folder = parts.catalog.ladder(record.model, manifest.version)
    folder.mkdir(parents=True, exist_ok=True)
    if deployment.purpose == "set-budget" and _does(record, manifest, parts):
        return _choose(record, manifest, parts)
    async with collecting.gathered(record, manifest, parts) as collected:
        came = manifest.files.calibration is not None
        if came and (collected is None or deployment.purpose != "recompress"):
            calibration: Path | None = _path(record, parts, "calibration")
        else:
            calibration = collected
        allowed = deployment.allow_unverified
        known = calibration is not None
        if admission.needs_inputs(calibration=known, allow_unverified=allowed):
            raise Refused(
                f"cannot compress {record.model}@{manifest.version}: no calibration inputs came "
                "with it, so that nothing could be verified; allow_unverified would do without"
            )
        await jobs.run(record, manifest, parts, calibration=calibration, folder=folder)
        if collected is not None and parts.key_file is not None:
            for probe in folder.rglob("probe-*.npz"):  # inputs in the plain
                probe.unlink()
    return _choose(record, manifest, parts)


def _does(record: Record, manifest: Manifest, parts: Parts) -> bool:
    """Whether what is on the ladder already meets the new budget; it is then ordered by that."""
    deployment = deployment_of(record)
    budget = deployment.effective_budget or deployment.budget
    found = reworking.on_the_shelf(record, manifest.version, budget, parts)
    allowed = deployment.allow_unverified
    if found is None or not admission.next_rung(found, record.distrusted, allow_unverified=allowed):
        return False
    ladder.save(found, parts.catalog.ladder(record.model, manifest.version))
    return True


def _path(record: Record, parts: Parts, file: str) -> Path:
    return parts.catalog.path(record.model, deployment_of(record).version, file)


def _choose(record: Record, manifest: Manifest, parts: Parts) -> Outcome:
    """Take the best rung that meets the budget and was not turned down."""
    deployment = deployment_of(record)
    folder = parts.catalog.ladder(record.model, manifest.version)
    offered = ladder.load(folder)
    allowed = deployment.allow_unverified
    turned_down = (*deployment.turned_down, *record.distrusted)
    rung = admission.next_rung(offered, turned_down, allow_unverified=allowed)
    if rung is not None and (no := _no_better(rung, record)):
        raise Refused(f"cannot better {record.model}@{manifest.version}: {no}")
    if rung is None:
        nearest = admission.nearest(offered, turned_down, allow_unverified=allowed)
        last = f"; {deployment.message}" if deployment.turned_down and deployment.message else ""
        raise Refused(
            f"cannot fit {record.model}@{manifest.version} into its budget: {nearest}{last}"
        )
    chosen = rungs.variant(rung, version=manifest.version, folder=folder, parts=parts)
    return Event.DONE, record.with_deployment(chosen=chosen, message="")


def _no_better(rung: Rung, record: Record) -> str:
    """Why a rung, the best of those that meet the budget, is not worth a switch."""
    live = record.live if deployment_of(record).purpose == "recompress" else None
    if live is None or live.measurement is None or not live.meets_budget:
        return ""
    reason = (
        ""
        if rung.sha256 == live.sha256
        else (admission.no_better(rung.measurement, live.measurement))
    )
    return reason and f"{rung.recipe.label!r} against {live.label!r}, which serves: {reason}"


async def try_out(record: Record, parts: Parts) -> Outcome:
    """Judge the chosen variant on inputs that neither calibrated nor chose, where they came."""
    deployment = deployment_of(record)
    manifest = parts.catalog.manifest(record.model, deployment.version)
    chosen, budget = deployment.chosen, deployment.effective_budget or deployment.budget
    assert chosen is not None
    assert chosen.measurement is not None
    if record.live and chosen.same(record.live) and chosen.runtime == record.live.runtime:
        live = record.live.model_copy(update={"meets_budget": True})
        record = record.model_copy(update={"live": live})
        return say(record, Event.SETTLED, f"{chosen.label!r} meets the budget and serves already")

    measurement = chosen.measurement
    if manifest.files.evaluation is not None:
        async with parts.heavy:
            measurement = await parts.trial(
                TrialJob(
                    candidate_path=str(parts.absolute(chosen.path)),
                    original_path=str(_path(record, parts, "model")),
                    inputs_path=str(_path(record, parts, "evaluation")),
                    split="evaluation",
                    inputs=manifest.inputs,
                    outputs=manifest.outputs,
                    runtime=chosen.runtime,
                    seconds=TRIAL_SECONDS,
                )
            )
    verdict = admission.judge(
        measurement, budget, available_mib=room_mib(record, parts), cores=parts.device_class.cores
    )
    reasons = verdict.reasons
    if not reasons:
        async with parts.arranging:
            reasons = await neighbours.make_room(record, measurement, parts, asking=True)
    if reasons:
        why = f"cannot admit {chosen.label!r}: {'; '.join(reasons)}"
        parts.emit("tried", record, why, label=chosen.label, accepted=False,
                   measurement=measurement.model_dump(exclude_none=True))  # fmt: skip
        turned_down = (*deployment.turned_down, chosen.sha256)
        record = record.with_deployment(turned_down=turned_down, message=why)
        _, record = _choose(record, manifest, parts)
        return Event.AGAIN, record
    judged = manifest.files.evaluation is not None
    return Event.DONE, record.with_deployment(
        chosen=chosen.model_copy(
            update={"measurement": measurement, "verified": chosen.verified or judged}
        )
    )


async def switch(record: Record, parts: Parts) -> Outcome:
    """Let the chosen variant take over from what serves."""
    deployment = deployment_of(record)
    assert deployment.chosen is not None
    manifest = parts.catalog.manifest(record.model, deployment.version)
    record = await take_over(record, deployment.chosen, manifest, parts)
    observed = Event.DONE if deployment.observe_minutes else Event.SETTLED
    return say(record, observed, serves(deployment.chosen))
