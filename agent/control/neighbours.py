"""The other models of the device: what they take, what is left, and that some step down for one."""

from collections.abc import Sequence

from agent.control import arbitration, rungs
from agent.control.arbitration import Claim, Option, Plan
from agent.control.parts import FORECAST, Parts
from agent.control.record import Deployment, Record, Variant
from agent.control.states import REST
from compression import judging, ladder
from compression.errors import BadInputs
from compression.findings import Measurement, Rung
from compression.job import Budget

_LEAST_MIB = 1.0
_LEAST_SHARE = 0.01


def bounded(default: Budget, record: Record, budget: Budget, parts: Parts) -> Budget:
    """The device's default, no more than what its other models leave to this one.

    `budget` is what is asked of it otherwise: its request rate is what a share of the CPU is for.
    """
    others = _others(record, parts)
    room = parts.room()
    if not others and room == arbitration.Room():
        return default
    wanted = _claimed(record, (Option("", "", 0.0),), None)
    mib, share = arbitration.allowance(wanted, others, room)
    fields: dict[str, float] = {}
    if mib != float("inf"):
        fields["peak_memory_mib"] = max(_LEAST_MIB, min(mib, default.peak_memory_mib or mib))
    if budget.request_rate_hz is not None and share < 1.0:
        fields["cpu_share"] = max(_LEAST_SHARE, min(share, default.cpu_share or share))
        fields["request_rate_hz"] = budget.request_rate_hz
    return Budget(**(default.model_dump(exclude_none=True) | fields))


async def make_room(
    record: Record, measurement: Measurement | None, parts: Parts, *, asking: bool,
    forecast_mib: float = 0.0,
) -> tuple[str, ...]:  # fmt: skip
    """See that all models fit with this one, `asking` others to step down where they must.

    Returns why it does not fit; nothing where it does.
    """
    others = _others(record, parts)
    option = _option(record, measurement, forecast_mib, parts, sha256="asked", label="new")
    new = _claimed(record, (option,), None)
    plan = arbitration.arrange([*others, new], parts.room())
    if record.model in plan.refused:
        return (plan.refused[record.model],)
    moved = plan.moved(others)
    if moved and not asking:
        names = ", ".join(model for model, _ in moved)
        return (f"it fits only where others step down: {names}",)
    await _follow(others, plan, parts, why=f"to make room for {record.model}")
    return ()


async def give_back(parts: Parts) -> None:
    """Let models serve better rungs again that fit, now that there is more room."""
    claims = _claims(parts.neighbours(), parts)
    plan = arbitration.arrange(claims, parts.room(), raising=True)
    await _follow(claims, plan, parts, why="there is room again")


async def _follow(claims: Sequence[Claim], plan: Plan, parts: Parts, *, why: str) -> None:
    known = {record.model: record for record in parts.neighbours()}
    # Who takes less goes first: nothing may be loaded that has no room yet.
    for model, option in sorted(plan.moved(claims), key=lambda one: one[1].peak_mib):
        wanted = _variants(known[model], parts).get(option.sha256)
        if wanted is not None:
            await parts.step(model, wanted, f"{wanted.label!r} serves {why}")


def _others(record: Record, parts: Parts) -> tuple[Claim, ...]:
    return _claims([one for one in parts.neighbours() if one.model != record.model], parts)


def _claims(records: Sequence[Record], parts: Parts) -> tuple[Claim, ...]:
    found = (_claim(record, parts) for record in records)
    return tuple(claim for claim in found if claim is not None)


def _claim(record: Record, parts: Parts) -> Claim | None:
    """What a model takes or could take; None where nothing of it serves or is about to."""
    deployment, live = record.deployment, record.live
    working = deployment is not None and deployment.state not in REST
    if working:  # what it takes now, or is about to: whatever is more
        chosen = deployment.chosen if deployment else None
        known = [_served(record, one, parts) for one in (live, chosen) if one is not None]
        most = max(known, key=lambda one: one.peak_mib, default=None)
        return None if most is None else _claimed(record, (most,), 0, fixed=True)
    if live is None:
        return None
    options = [_served(record, one, parts) for one in _variants(record, parts).values()]
    at = next(n for n, one in enumerate(options) if one.sha256 == live.sha256)
    return _claimed(record, tuple(options), at)


def _variants(record: Record, parts: Parts) -> dict[str, Variant]:
    """What a model can serve here, best first, by hash: its ladder's, and what serves."""
    live, deployment = record.live, record.deployment
    assert live is not None
    folder = parts.catalog.ladder(record.model, live.version)
    found: dict[str, Variant] = {}
    for rung in _fitting(record, live, deployment, parts):
        found[rung.sha256] = rungs.variant(rung, version=live.version, folder=folder, parts=parts)
    if live.sha256 in found:
        return found | {live.sha256: live}
    return {live.sha256: live} | found


def _fitting(
    record: Record, live: Variant, deployment: Deployment | None, parts: Parts
) -> list[Rung]:
    """The rungs that meet the model's own budget and may serve, best first."""
    if deployment is None or deployment.version != live.version:
        return []
    budget, cores = deployment.effective_budget or deployment.budget, parts.device_class.cores
    try:
        offered = ladder.load(parts.catalog.ladder(record.model, live.version))
    except BadInputs:  # there is none
        return []
    judged = [judging.judged(rung, budget, cores=cores) for rung in offered.rungs]
    barred = {*deployment.turned_down, *record.distrusted}
    return [
        rung
        for rung in ladder.in_order(judged, budget, cores=cores)
        if rung.meets_budget
        and rung.sha256 not in barred
        and (rung.verified or deployment.allow_unverified)
    ]


def _served(record: Record, variant: Variant, parts: Parts) -> Option:
    forecast = 0.0
    if variant.measurement is None:
        manifest = parts.catalog.manifest(record.model, variant.version)
        forecast = manifest.files.model.size_bytes * FORECAST / 2**20
    which = {"sha256": variant.sha256, "label": variant.label}
    return _option(record, variant.measurement, forecast, parts, **which)


def _option(
    record: Record, measurement: Measurement | None, forecast_mib: float, parts: Parts, *,
    sha256: str, label: str,
) -> Option:  # fmt: skip
    if measurement is None:
        return Option(sha256, label, forecast_mib)
    budget = record.deployment.effective_budget if record.deployment else None
    rate, cores = budget and budget.request_rate_hz, parts.device_class.cores
    share = judging.cpu_share(measurement, rate_hz=rate, cores=cores) if rate else 0.0
    return Option(sha256, label, measurement.peak_memory_mib, share)


def _claimed(
    record: Record, options: tuple[Option, ...], serving: int | None, *, fixed: bool = False
) -> Claim:
    deployment = record.deployment
    return Claim(
        record.model,
        options,
        serving,
        priority=deployment.priority if deployment else 0,
        weight=deployment.weight if deployment else 1.0,
        fixed=fixed,
    )
