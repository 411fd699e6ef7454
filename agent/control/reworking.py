"""What begins where more work on what serves is asked for: by another budget, or for better rungs.

The files are on the device, so such a deployment begins behind FETCHING; what serves goes on
serving, and is not the original's to replace in between.
"""

from typing import Any

from agent.control import admission, budgets, collecting
from agent.control.parts import Parts
from agent.control.record import Deployment, Record, Variant
from agent.control.states import State
from agent.errors import Refused
from agent.protocol.commands import Recompress, SetBudget
from agent.protocol.manifest import Manifest
from compression import judging, ladder
from compression.errors import BadInputs
from compression.findings import Ladder
from compression.job import Budget

_COLLECTING = ("collect_inputs", "collect_minutes", "collect_hours")


def fields(record: Record | None, order: SetBudget | Recompress, parts: Parts) -> dict[str, Any]:
    """The fields of the deployment that `order` begins.

    Raises:
        Refused: nothing of that model serves, or another version of it is on its way.
    """
    live = _live(record, order)
    assert record is not None
    manifest = parts.catalog.manifest(record.model, live.version)
    last = record.deployment if _of(record.deployment, live) else None
    if isinstance(order, SetBudget):
        begun = _by_budget(record, last, order, manifest, parts)
    else:
        begun = _for_better(record, last, order, manifest, parts)
    allowed = last.allow_unverified if last else False
    return begun | {
        "version": live.version, "strategy": "improve", "purpose": order.kind,
        "allow_unverified": allowed, "minutes": order.minutes,
        "original": last.original if last else None,
        "observe_requests": order.observe_requests, "observe_minutes": order.observe_minutes,
    }  # fmt: skip


def judged(live: Variant, budget: Budget, parts: Parts) -> Variant:
    """What serves, after its budget has changed."""
    if live.measurement is None:
        return live.model_copy(update={"meets_budget": None})
    misses = judging.misses(live.measurement, budget, cores=parts.device_class.cores)
    return live.model_copy(update={"meets_budget": not misses})


def on_the_shelf(record: Record, version: int, budget: Budget, parts: Parts) -> Ladder | None:
    """The ladder that is here, judged by another budget; None where there is none."""
    try:
        known = ladder.load(parts.catalog.ladder(record.model, version))
    except BadInputs:
        return None
    return ladder.build(
        model=known.model, device_class=known.device_class, budget=budget, rungs=known.rungs,
        rejected=known.rejected, division=known.division, sensitivities=known.sensitivities,
    )  # fmt: skip


def _live(record: Record | None, order: SetBudget | Recompress) -> Variant:
    what = {"set-budget": "set the budget of", "recompress": "recompress"}[order.kind]
    if record is None or record.live is None:
        raise Refused(f"cannot {what} {order.model}: nothing of it serves here")
    deployment, live = record.deployment, record.live
    if deployment and deployment.state in _ON_THE_WAY and deployment.version != live.version:
        raise Refused(
            f"cannot {what} {order.model}: version {deployment.version} is on its way "
            f"({deployment.state}); cancel it, or deploy it with that"
        )
    return live


_ON_THE_WAY = tuple(state for state in State if state not in {State.LIVE, State.REFUSED,
                                                              State.FAILED})  # fmt: skip


def _of(deployment: Deployment | None, live: Variant) -> bool:
    return deployment is not None and deployment.version == live.version


def _by_budget(
    record: Record, last: Deployment | None, order: SetBudget, manifest: Manifest, parts: Parts
) -> dict[str, Any]:
    """Straight to what is here where it may do, or where there are inputs to make more with."""
    effective = budgets.effective(order.budget, record, manifest, parts)
    allowed = last.allow_unverified if last else False
    found = on_the_shelf(record, manifest.version, effective, parts)
    here = found and admission.next_rung(found, record.distrusted, allow_unverified=allowed)
    asks = {name: getattr(last, name) for name in _COLLECTING} if last else {}
    ready = here or allowed or collecting.any_inputs(record.model, manifest, parts)
    wait = not ready and asks.get("collect_inputs", 0)
    return asks | {
        "budget": order.budget, "effective_budget": effective,
        "state": State.COLLECTING if wait else State.COMPRESSING,
    }  # fmt: skip


def _for_better(
    record: Record, last: Deployment | None, order: Recompress, manifest: Manifest, parts: Parts
) -> dict[str, Any]:
    budget = last.budget if last else Budget()
    kept = last.effective_budget if last else None
    wait = order.collect_inputs and not collecting.complete(record.model, manifest.version, parts)
    effective = kept or budgets.effective(budget, record, manifest, parts)
    return {name: getattr(order, name) for name in _COLLECTING} | {
        "budget": budget, "effective_budget": effective,
        "when": order.when, "recover_minutes": order.recover_minutes,
        "state": State.COLLECTING if wait else State.COMPRESSING,
    }  # fmt: skip
