"""What counts as lost in the table of budgets: beyond chance, or where ours was refused."""

import pytest

from compression.findings import Agreement, Ladder, Measurement, ModelRef, Rung
from compression.job import Budget, DeviceClass, PassSpec, Recipe, Runtime
from tests.benchmarks import budget_rows
from tests.benchmarks.budget_jobs import Run

HERE = DeviceClass(machine="here", isa=(), cores=2, onnxruntime="installed")
BUDGET = Budget(latency_ratio=0.5, threads=1, min_agreement=0.98)
CUT = (PassSpec(name="structured_pruning", parameters={"keep": 0.5}),)


def rung(agreement: float, ratio: float, *, half: float = 0.01) -> Rung:
    judged = Agreement(
        value=agreement, low=agreement - half, high=min(1.0, agreement + half), kind="logits",
        output="y", samples=400, split="evaluation",
    )  # fmt: skip
    found = Measurement(
        latency_p50_ms=ratio, latency_p95_ms=ratio, original_latency_p50_ms=1.0,
        original_latency_p95_ms=1.0, latency_ratio=ratio, ratio_basis="cpu", wall_ratio=ratio,
        cpu_ratio=ratio, noise=0.01, cpu_ms_per_inference=ratio,
        original_cpu_ms_per_inference=1.0, peak_memory_mib=1.0, original_peak_memory_mib=1.0,
        size_mib=0.2, original_size_mib=1.0, agreement=judged, sqnr_db={"y": 30.0}, threads=1,
        samples=400, rounds=40, method={},
    )  # fmt: skip
    return Rung(
        file="a", sha256="0" * 64, recipe=Recipe(label=f"at {ratio}", passes=CUT),
        runtime=Runtime(), measurement=found, meets_budget=False,
    )  # fmt: skip


def row(ours: Rung, *, even: Rung) -> dict[str, object]:
    met = not budget_rows.judging.misses(ours.measurement, BUDGET, cores=2)
    found = Ladder(
        model=ModelRef(name="m", sha256="0" * 64), device_class=HERE, budget=BUDGET,
        rungs=(ours.model_copy(update={"meets_budget": met}),),
    )  # fmt: skip
    run = Run(found, minutes=1.0, looks=1, trials=1)
    return budget_rows.row("m", BUDGET, run, plain=[], even=[even], cores=2)


@pytest.mark.parametrize(
    ("ours", "even", "lost"),
    [
        (rung(0.990, 0.45), rung(0.995, 0.45), []),  # by chance
        (rung(0.985, 0.45), rung(1.000, 0.45, half=0.001), ["even"]),
        (rung(0.985, 0.45), rung(1.000, 0.55, half=0.001), []),  # which is too slow
        (rung(0.970, 0.45), rung(0.982, 0.45), ["even"]),  # ours is refused, that one serves
        (rung(0.970, 0.45), rung(0.975, 0.45), []),  # neither serves
        (rung(0.990, 0.55), rung(0.985, 0.45), ["even"]),  # nothing of ours keeps the bounds
        (rung(0.990, 0.55), rung(0.950, 0.45), []),
    ],
)
def test_a_rival_wins_beyond_chance_or_where_it_alone_serves(
    ours: Rung, even: Rung, lost: list[str]
) -> None:
    found = row(ours, even=even)
    assert found["lost"] == lost
    assert budget_rows.text(found).startswith("m ")


def test_a_job_that_failed_loses_to_whatever_serves() -> None:
    run = Run(None, minutes=1.0, looks=0, trials=0, refused="cannot go on")
    even = rung(0.99, 0.45)
    found = budget_rows.row("m", BUDGET, run, plain=[], even=[even], cores=2)
    assert found["verdict"] == "refused"
    assert found["lost"] == ["even"]
