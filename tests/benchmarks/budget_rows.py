"""What a row of the table of budgets says, and when the search lost to a simpler way (pure)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from compression import bought, judging
from compression.findings import Ladder, Measurement, Rejected, Rung
from compression.job import Budget
from tests.benchmarks.budget_jobs import Run

LATENCIES, SIZES = (0.7, 0.5, 0.35), (0.25, 0.15, 0.1)
BUDGETS: tuple[Budget, ...] = (
    *(Budget(latency_ratio=ratio, threads=1) for ratio in LATENCIES),
    *(Budget(size_ratio=ratio, threads=1) for ratio in SIZES),
    *(
        Budget(latency_ratio=fast, size_ratio=small, threads=1)
        for fast, small in zip(LATENCIES, SIZES, strict=True)
    ),
)
Found = Rung | Rejected
HEAD = (
    f"{'model':11} {'budget':16} {'verdict':8} {'agreement':>15} {'time':>11} {'size':>5} "
    f"{'loss':>7} {'min':>5} {'looks':>5} {'trials':>6} | {'int8 alone':>26} | "
    f"{'even cut + int8':>26} |"
)


def row(
    model: str, budget: Budget, run: Run, *, plain: Sequence[Rung], even: Sequence[Rung], cores: int
) -> dict[str, Any]:
    """One budget of one model. `plain` and `even` are the rivals, measured on the same inputs."""
    ours: list[Found] = []
    if run.ladder is not None:
        ours = [*run.ladder.rungs, *(one for one in run.ladder.rejected if one.measurement)]
    first = run.ladder.rungs[0] if run.ladder is not None and run.ladder.rungs else None
    met = first is not None and first.meets_budget
    shown = first if met else closest(ours, budget, cores=cores)
    rivals = {"int8": plain, "even": even}
    found = {
        "model": model,
        "budget": budget.model_dump(exclude_none=True),
        "verdict": "fits" if met else "refused",
        "ours": said(shown),
        "minutes": round(run.minutes, 2),
        "looks": run.looks,
        "trials": run.trials,
        "problem": run.refused,
        **{name: said(closest(rungs, budget, cores=cores)) for name, rungs in rivals.items()},
    }
    return found | {"lost": lost(found), "why": why(run.ladder)}


def closest(found: Iterable[Found], budget: Budget, *, cores: int) -> Found | None:
    """What agrees best of all that keeps the bounds of time and size; None: nothing does."""
    room = budget.model_copy(update={"min_agreement": None})
    able = [
        (one, one.measurement)
        for one in found
        if one.measurement is not None
        and one.recipe.passes
        and not judging.misses(one.measurement, room, cores=cores)
    ]
    if not able:
        return None
    return max(able, key=lambda each: (each[1].agreement.value, -loss(each[1])))[0]


def said(one: Found | None) -> dict[str, Any] | None:
    """The figures of a variant; None for none."""
    if one is None or one.measurement is None:
        return None
    m: Measurement = one.measurement
    return {
        "label": one.recipe.label,
        "cut": bought.is_cut(one),
        "agreement": m.agreement.value,
        "low": m.agreement.low,
        "high": m.agreement.high,
        "split": m.agreement.split,
        "samples": m.agreement.samples,
        "loss": loss(m),
        "ratio": m.latency_ratio,
        "margin": judging.margin(m),
        "basis": m.ratio_basis,
        "size_ratio": m.size_mib / m.original_size_mib,
        "predicted": one.predicted_ratio,
    }


def loss(found: Measurement) -> float:
    """Nats of classes; of all else the share of the error in the judged output's power."""
    said = found.agreement.also.get("kl_nats")
    if said is not None:
        return said
    noise = 10 ** (-found.sqnr_db[found.agreement.output] / 10)
    return noise / (1.0 + noise)


def lost(found: dict[str, Any]) -> list[str]:
    """Which rivals are more alike beyond chance, or alike enough to serve where ours was refused.

    Beyond chance: by more than 1.96 standard errors of the difference.
    """
    ours, losing = found["ours"], []
    for name in ("int8", "even"):
        rival = found[name]
        if rival is None:
            continue
        serves = rival["agreement"] >= judging.DEFAULT_MIN_AGREEMENT
        errors = [(one["agreement"] - one["low"]) for one in (ours, rival) if one is not None]
        apart = rival["agreement"] - (ours["agreement"] if ours is not None else 1.0)
        nearer = apart > math.hypot(*errors)
        if nearer or (serves and found["verdict"] == "refused"):
            losing.append(name)
    return losing


def why(found: Ladder | None) -> list[str]:
    """What the ladder says of cuts that were rejected or not tried."""
    if found is None:
        return []
    return [
        f"{one.recipe.label}: {one.reason}"
        for one in found.rejected
        if one.recipe.label.startswith("pruned") or not one.tried
    ][:6]


def text(found: dict[str, Any]) -> str:
    """One line of the table."""
    bounds = found["budget"]
    asked = " ".join(
        f"{letter} {bounds[field]:g}"
        for letter, field in (("t", "latency_ratio"), ("s", "size_ratio"))
        if field in bounds
    )
    ours = found["ours"]
    figures = f"{'-':>15} {'-':>11} {'-':>5} {'-':>7}"
    if ours is not None:
        figures = (
            f"{ours['agreement']:.3f} ({ours['low']:.3f}-) {ours['ratio']:.2f} "
            f"+-{ours['margin']:.2f} {ours['size_ratio']:5.2f} {ours['loss']:7.1e}"
        )
    end = f" LOST to {', '.join(found['lost'])}" if found["lost"] else ""
    label = ours["label"][:70] if ours else "nothing keeps the bounds"
    return (
        f"{found['model']:11} {asked:16} {found['verdict']:8} {figures} {found['minutes']:5.1f} "
        f"{found['looks']:5} {found['trials']:6} | {_brief(found['int8']):>26} | "
        f"{_brief(found['even']):>26} | {label}{end}"
    )


def _brief(one: dict[str, Any] | None) -> str:
    if one is None:
        return "none"
    return f"{one['agreement']:.3f} {one['ratio']:.2f} {one['size_ratio']:.2f} {one['loss']:7.1e}"
