"""The ladder's rules: what misses a budget, what comes first, what is picked."""

from pathlib import Path

import pytest

from compression import judging, ladder, report
from compression.errors import BadInputs
from compression.findings import Agreement, Ladder, Measurement, ModelRef, Rejected, Rung
from compression.job import Budget, DeviceClass, PassSpec, Recipe, Runtime
from compression.stream import Tried

DEVICE = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="1")
SHA = "0" * 64


def measured(*, value: float = 0.99, **fields) -> Measurement:
    agreement = Agreement(
        value=value,
        low=value - 0.00196,
        high=1,
        kind="logits",
        output="y",
        samples=100,
        split="held-out",
    )
    figures = {
        "latency_p50_ms": 8.0, "latency_p95_ms": 10.0, "original_latency_p50_ms": 16.0,
        "original_latency_p95_ms": 20.0, "latency_ratio": 0.5, "ratio_basis": "wall",
        "wall_ratio": 0.5, "cpu_ratio": 0.5, "noise": 0.01, "cpu_ms_per_inference": 8.0,
        "original_cpu_ms_per_inference": 16.0, "peak_memory_mib": 30.0,
        "original_peak_memory_mib": 60.0, "size_mib": 1.2, "original_size_mib": 4.8,
        "agreement": agreement, "sqnr_db": {"y": 30.0}, "threads": 1, "samples": 100,
        "rounds": 30, "method": {},
    }  # fmt: skip
    return Measurement(**(figures | fields))


def rung(label: str, **fields) -> Rung:
    return Rung(
        file=f"{label}.onnx", sha256=SHA, recipe=Recipe(label=label), runtime=Runtime(),
        measurement=measured(**fields), meets_budget=True,
    )  # fmt: skip


def built(budget: Budget, *rungs: Rung) -> Ladder:
    return ladder.build(
        model=ModelRef(name="m", sha256=SHA), device_class=DEVICE, budget=budget, rungs=rungs
    )


CASES = {
    "latency_p95_ms": ({"latency_p95_ms": 9}, "latency p95 10.00 ms over budget 9.00 ms"),
    "latency_ratio": ({"latency_ratio": 0.4}, "latency ratio 0.50 over budget 0.40"),
    "peak_memory_mib": ({"peak_memory_mib": 20}, "peak memory 30.00 MiB over budget 20.00 MiB"),
    "memory_ratio": ({"memory_ratio": 0.25}, "memory ratio 0.50 over budget 0.25"),
    "size_mib": ({"size_mib": 0.9}, "size 1.20 MiB over budget 0.90 MiB"),
    "size_ratio": ({"size_ratio": 0.2}, "size ratio 0.25 over budget 0.20"),
    "cpu_share": (
        {"cpu_share": 0.01, "request_rate_hz": 10},
        "CPU share 4.0% at 10.00 Hz on 2 cores over budget 1.0%",
    ),
    "min_agreement": (
        {"min_agreement": 0.995},
        "agreement 0.990 (logits, 100 held-out samples) below 0.995",
    ),
}


@pytest.mark.parametrize("field", CASES)
def test_each_field_of_the_budget_has_its_miss(field: str) -> None:
    bounds, sentence = CASES[field]
    assert judging.misses(measured(), Budget(**bounds), cores=2) == (sentence,)


def test_threads_beyond_the_budget_are_a_miss() -> None:
    found = judging.misses(measured(threads=2), Budget(threads=1), cores=2)
    assert found == ("threads 2.00 over budget 1.00",)


def test_every_field_is_covered() -> None:
    assert {*CASES, "threads", "request_rate_hz"} == set(Budget.model_fields)


def test_what_lies_on_the_bound_meets_it() -> None:
    budget = Budget(
        latency_p95_ms=10, latency_ratio=0.5, peak_memory_mib=30, memory_ratio=0.5, size_mib=1.2,
        size_ratio=0.25, cpu_share=0.04, request_rate_hz=10, min_agreement=0.99, threads=1,
    )  # fmt: skip
    assert judging.misses(measured(), budget, cores=2) == ()


def test_those_that_meet_the_budget_come_first_by_agreement_then_by_how_far_they_miss() -> None:
    budget = Budget(size_mib=1.0, min_agreement=0.9)
    found = built(
        budget,
        rung("original", size_mib=4.8, value=1.0),
        rung("near", size_mib=1.1, value=0.95),
        rung("good", size_mib=0.9, value=0.93),
        rung("better", size_mib=1.0, value=0.97),
    )
    assert [one.recipe.label for one in found.rungs] == ["better", "good", "near", "original"]
    assert [one.meets_budget for one in found.rungs] == [True, True, False, False]
    assert found.rungs[2].misses == ("size 1.10 MiB over budget 1.00 MiB",)


def test_picks_under_another_budget_or_names_the_nearest() -> None:
    found = built(Budget(), rung("a", value=0.99), rung("b", size_mib=0.5, value=0.95))
    assert ladder.pick(found, Budget()).recipe.label == "a"
    assert ladder.pick(found, Budget(size_mib=0.6)).recipe.label == "b"
    assert ladder.pick(found, Budget(size_mib=0.1)) is None
    assert ladder.nearest(found, Budget(size_mib=0.4)).recipe.label == "b"


def test_a_ladder_survives_the_disk_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    found = built(Budget(size_mib=2), rung("a"))
    assert ladder.load(ladder.save(found, tmp_path).parent) == found
    assert [path.name for path in tmp_path.iterdir()] == ["ladder.json"]
    (tmp_path / "ladder.json").write_bytes(found.to_json()[:-20])
    with pytest.raises(BadInputs, match="cannot read"):
        ladder.load(tmp_path)
    with pytest.raises(BadInputs, match="No such file"):
        ladder.load(tmp_path / "nowhere")


def test_the_table_shows_rungs_and_reasons() -> None:
    found = built(Budget(size_mib=1), rung("int8"))
    rejected = Rejected(recipe=Recipe(label="all"), reason="agreement 0.155 below 0.990")
    text = report.table(found.model_copy(update={"rejected": (rejected,)}))
    assert "int8" in text
    assert "size 1.20 MiB over budget 1.00 MiB" in text
    assert "all: agreement 0.155 below 0.990" in text


def test_rungs_are_ordered_and_picked_by_what_chose_them_not_by_what_they_report() -> None:
    def chosen(label: str, by: float, reported: float) -> Rung:
        agreement = measured(value=by).agreement.model_copy(update={"split": "choosing"})
        return rung(label, value=reported).model_copy(update={"chosen_by": agreement})

    found = built(Budget(min_agreement=0.9), chosen("a", 0.95, 0.99), chosen("b", 0.97, 0.92))
    assert [one.recipe.label for one in found.rungs] == ["b", "a"]
    picked = ladder.pick(found, Budget())
    assert picked is not None
    assert picked.recipe.label == "b"
    found = built(Budget(min_agreement=0.95), *found.rungs)
    assert [one.recipe.label for one in found.rungs] == ["a", "b"]


def test_candidates_that_were_not_tried_are_one_line() -> None:
    left = tuple(
        Rejected(recipe=Recipe(label=label), reason="not tried: it looked no better", tried=False)
        for label in ("int8 a", "int8 b", "int8 c")
    )
    bad = Rejected(recipe=Recipe(label="all"), reason="agreement 0.155 below 0.990")
    text = report.table(built(Budget()).model_copy(update={"rejected": (*left, bad)}))
    folded = "3 not tried, as they looked no better than what is kept: int8 a, int8 b, int8 c"
    assert text.count("not tried") == 1
    assert folded in text
    assert "all: agreement 0.155" in text
    assert report.line(Tried(untried=left)) == folded
    assert report.untried((bad,)) == ""
    late = Rejected(recipe=Recipe(label="late"), reason="not tried: the 10 minutes", tried=False)
    over = "1 not tried, as the minutes of the job are over: late; "
    assert report.untried((*left, late)) == over + folded


def test_what_is_within_a_standard_error_of_the_best_is_as_good_and_the_faster_comes_first() -> (
    None
):
    # The standard error of each is 0.001, see `measured`.
    found = built(
        Budget(min_agreement=0.9),
        rung("best", value=0.99, latency_ratio=0.9),
        rung("fast", value=0.9895, latency_ratio=0.5),
        rung("small", value=0.9895, latency_ratio=0.51, size_mib=0.6),
        rung("worse", value=0.98, latency_ratio=0.3),
    )
    assert [one.recipe.label for one in found.rungs] == ["small", "fast", "best", "worse"]
    assert ladder.pick(found, Budget(latency_ratio=0.4)).recipe.label == "worse"


def variant(label: str, **fields) -> Rung:
    """A rung that is not the original itself."""
    recipe = Recipe(label=label, passes=(PassSpec(name="stored"),))
    return rung(label, **fields).model_copy(update={"recipe": recipe})


def test_what_would_surely_fit_again_comes_before_what_might_not() -> None:
    budget = Budget(latency_ratio=0.5, min_agreement=0.9)
    barely = variant("barely", latency_ratio=0.495, ratio_high=0.51, value=0.999)
    surely = variant("surely", latency_ratio=0.48, ratio_high=0.485, value=0.95)
    original = rung("over", latency_ratio=0.51, ratio_high=0.52, value=1.0)
    found = built(budget, original, barely, surely)
    assert [one.recipe.label for one in found.rungs] == ["surely", "barely", "over"]
    assert [one.meets_budget for one in found.rungs] == [True, True, False]


def test_where_nothing_would_surely_fit_what_fits_comes_first_as_ever() -> None:
    budget = Budget(peak_memory_mib=30.5)
    found = built(
        budget, rung("near"), rung("alike", value=0.999), rung("over", peak_memory_mib=31)
    )
    assert [one.recipe.label for one in found.rungs] == ["alike", "near", "over"]


def test_a_figure_that_may_be_off_by_more_needs_a_wider_margin() -> None:
    assert judging.margin(measured(noise=0.001)) == judging.LEAST_MARGIN
    assert judging.margin(measured(noise=0.04)) == pytest.approx(0.08)
    assert judging.margin(measured(ratio_high=0.55)) == pytest.approx(0.1)
