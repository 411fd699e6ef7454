"""Which variants stand nearer to the original, input by input, and what comes first for it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression import judging, ladder, pairing
from compression.apart import WORST_NATS, Apart
from compression.choosing import front, placing, preview, verdict
from compression.choosing.asked import NEAR, Asked
from compression.choosing.preview import Preview
from compression.findings import Each, Nearness, Rung
from compression.job import Budget, OutputSpec
from tests.compression.test_choosing import look
from tests.compression.test_ladder import measured, variant

COUNT = 60
SOURCES = range(COUNT)
RANDOM = np.random.default_rng(11)
SPREAD = np.exp(RANDOM.normal(size=COUNT))
"""Losses differ from input to input far more than those of two variants on one input."""


def each(loss: float, *, wrong: int = 0) -> Each:
    """A variant whose losses are `loss` times the inputs' own, wrong on the first few."""
    lost = loss * SPREAD
    agreed = np.ones(COUNT)
    agreed[:wrong] = 0.0
    return Each(agreed=tuple(agreed), lost=tuple(lost), error=tuple(lost))


ORIGINAL = each(0.0)


def test_what_loses_less_on_every_input_is_nearer_though_both_answer_alike() -> None:
    assert pairing.nearer(each(0.001), each(0.004), SOURCES)
    assert not pairing.nearer(each(0.004), each(0.001), SOURCES)


def test_losses_of_a_decibel_more_or_less_and_of_next_to_nothing_are_the_same() -> None:
    assert not pairing.nearer(each(0.001), each(0.00115), SOURCES)
    assert not pairing.nearer(each(1e-12), each(1e-9), SOURCES)


def test_answers_count_before_losses_where_they_differ_beyond_chance() -> None:
    assert pairing.nearer(each(0.01), each(0.001, wrong=8), SOURCES)
    assert pairing.nearer(each(0.001, wrong=2), each(0.01), SOURCES)  # two of sixty are chance


def test_one_wild_answer_does_not_hide_what_all_others_lose() -> None:
    wild = np.array(each(0.01).lost)
    calm = np.array(each(0.0001).lost)
    wild[0] = WORST_NATS
    far, near = (
        Each(agreed=(1.0,) * COUNT, lost=tuple(lost), error=tuple(lost)) for lost in (wild, calm)
    )
    assert pairing.nearer(near, far, SOURCES)


def test_who_answered_fewer_inputs_is_compared_on_those() -> None:
    lost = each(0.001).lost[:30]
    few = Each(agreed=(1.0,) * 30, lost=lost, error=lost)
    assert pairing.nearer(few, each(0.004), SOURCES)
    assert pairing.nearer(ORIGINAL, few, SOURCES)


def test_where_sure_answers_lose_nothing_the_error_of_the_outputs_tells() -> None:
    sure = np.zeros(COUNT)
    few, many = (
        Each(agreed=(1.0,) * COUNT, lost=tuple(sure), error=each(error).error)
        for error in (0.02, 0.05)
    )
    assert pairing.nearer(few, many, SOURCES)
    assert not pairing.nearer(many, few, SOURCES)
    lossy = many.model_copy(update={"lost": each(0.01).lost, "error": each(0.001).error})
    assert pairing.nearer(few, lossy, SOURCES)  # what is lost counts before


def test_copies_of_one_source_are_one_input() -> None:
    assert not pairing.nearer(each(0.001), each(0.004), [0] * COUNT)


@settings(deadline=None)
@given(st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=4, unique=True), st.randoms())
def test_places_follow_the_loss_in_whatever_order_they_are_given(losses: list[float], mix) -> None:
    every = [each(loss) for loss in losses]
    found = dict(zip(losses, pairing.places(every, SOURCES), strict=True))
    ranked = sorted(losses)
    assert [found[loss] for loss in ranked] == sorted(found.values())
    assert min(found.values()) == 0
    assert found[ranked[-1]] > 0 or ranked[-1] < 2 * ranked[0]
    mix.shuffle(losses)
    again = pairing.places([each(loss) for loss in losses], SOURCES)
    assert dict(zip(losses, again, strict=True)) == found


def test_the_original_is_nearer_than_all_that_lose_anything() -> None:
    assert pairing.places([each(0.01), ORIGINAL, each(0.1)], SOURCES) == (1, 0, 2)
    assert pairing.places([], []) == ()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_answer_that_is_no_number_is_the_farthest(broken: float) -> None:
    outputs = [OutputSpec(name="y", kind="logits"), OutputSpec(name="z")]
    apart = Apart(outputs)
    good = {"y": np.array([[1.0, 0.0]], np.float32), "z": np.zeros(3, np.float32)}
    apart.add(good, {**good, "y": np.full((1, 2), broken, np.float32)})
    apart.add(good, good)
    assert apart.found() == Each(agreed=(0.0, 1.0), lost=(WORST_NATS, 0.0), error=(1.0, 0.0))


def near(label: str, place: int, loss: float, **fields) -> Rung:
    nearness = Nearness(place=place, loss=loss)
    return variant(label, **fields).model_copy(update={"nearness": nearness})


def order(budget: Budget, *rungs: Rung) -> list[str]:
    return [one.recipe.label for one in ladder.in_order(rungs, budget, cores=2)]


NEEDLESS = near("deep cut", 2, 0.1, latency_ratio=0.3, size_mib=0.1, value=0.989)
ENOUGH = near("int8", 1, 1e-4, latency_ratio=0.6, size_mib=0.9, value=0.99)


def test_within_a_bound_the_nearest_comes_first_not_the_fastest() -> None:
    assert order(Budget(latency_ratio=0.7), NEEDLESS, ENOUGH) == ["int8", "deep cut"]
    assert order(Budget(size_ratio=0.25), NEEDLESS, ENOUGH) == ["int8", "deep cut"]
    assert order(Budget(latency_ratio=0.5), NEEDLESS, ENOUGH) == ["deep cut", "int8"]


def test_of_equally_near_ones_the_faster_comes_first() -> None:
    slow = near("slow", 1, 1e-4, latency_ratio=0.65, size_mib=0.9)
    twin = near("twin", 1, 1e-4, latency_ratio=0.45, size_mib=0.9)
    assert order(Budget(latency_ratio=0.7), slow, NEEDLESS, twin) == ["twin", "slow", "deep cut"]


def test_what_chance_may_make_equal_is_told_by_half_the_loss_where_time_is_bound() -> None:
    slow = near("slow", 1, 0.013, latency_ratio=0.45, size_mib=0.9)
    mean = near("mean", 1, 0.031, latency_ratio=0.3, size_mib=0.9)
    same = near("same", 1, 0.02, latency_ratio=0.4, size_mib=0.9)
    assert order(Budget(latency_ratio=0.5), mean, slow, same) == ["same", "slow", "mean"]
    assert order(Budget(size_ratio=0.2), mean, slow, same) == ["mean", "same", "slow"]


def test_where_size_alone_is_bound_speed_counts_before_a_loss_that_nobody_feels() -> None:
    exact = near("weights", 0, 1e-8, latency_ratio=1.0, size_mib=1.1, value=1.0)
    assert order(Budget(size_ratio=0.25), exact, ENOUGH) == ["int8", "weights"]
    assert order(Budget(latency_ratio=0.999999), ENOUGH, exact)[0] == "int8"  # 1.0 does not fit
    felt = near("int4", 1, 0.01, latency_ratio=0.5, size_mib=0.9, value=0.99)
    assert order(Budget(size_ratio=0.25), felt, exact) == ["weights", "int4"]


def test_where_nothing_binds_speed_is_what_is_asked_for() -> None:
    exact = near("weights", 0, 1e-8, latency_ratio=1.0, value=0.99)
    for budget in (Budget(), Budget(size_ratio=1.0, latency_p95_ms=25.0)):
        assert order(budget, exact, ENOUGH) == ["int8", "weights"]


FIGURES = st.tuples(st.integers(0, 3), st.floats(0.1, 0.99), st.floats(0.1, 4.0))


@given(st.lists(FIGURES, min_size=1, max_size=6), st.floats(0.2, 0.99), st.booleans())
def test_nothing_that_surely_fits_is_nearer_than_the_first(
    figures: list[tuple[int, float, float]], bound: float, of_time: bool
) -> None:
    rungs = [
        near(f"{at}", place, 0.01 * (1 + place), latency_ratio=ratio, size_mib=mib)
        for at, (place, ratio, mib) in enumerate(figures)
    ]
    budget = Budget(latency_ratio=bound) if of_time else Budget(size_ratio=bound)
    able = [one for one in rungs if judging.surely(one, budget, cores=2)]
    first = ladder.in_order(rungs, budget, cores=2)[0]
    if able:
        assert first in able
        assert first.nearness.place == min(one.nearness.place for one in able)
    else:
        assert first in rungs


@pytest.mark.parametrize(
    ("budget", "bound"),
    [
        (Budget(latency_ratio=0.5, size_ratio=1.0), {"latency_ratio"}),
        (Budget(latency_p95_ms=19.0, size_mib=5.0), {"latency_p95_ms"}),
        (Budget(cpu_share=0.1, request_rate_hz=20.0, size_ratio=1.0), {"cpu_share"}),
        (Budget(cpu_share=0.2, request_rate_hz=20.0, min_agreement=1.0, threads=1), set()),
        (Budget(peak_memory_mib=59.0, size_mib=4.7), {"peak_memory_mib", "size_mib"}),
    ],
)  # fmt: skip
def test_only_what_the_original_misses_binds(budget: Budget, bound: set[str]) -> None:
    assert judging.binding(budget, measured(), cores=2) == bound


def test_a_claim_is_the_slower_of_two_processes_and_allows_for_a_third() -> None:
    fast = measured(latency_ratio=0.42, ratio_low=0.41, ratio_high=0.43, latency_p50_ms=4.2)
    slow = measured(
        value=0.5, latency_ratio=0.47, ratio_low=0.46, ratio_high=0.48, latency_p50_ms=4.7
    )
    for reported, chosen in ((fast, slow), (slow, fast)):
        found = placing.claimed(reported, chosen)
        assert (found.latency_ratio, found.latency_p50_ms) == (0.47, 4.7)
        assert found.agreement == reported.agreement
        assert found.ratio_low == 0.41
        assert found.ratio_high == pytest.approx(0.47 * (1 + 2 * placing.PROCESSES))
        assert judging.margin(found) == pytest.approx(2 * placing.PROCESSES)
    wide = fast.model_copy(update={"ratio_high": 0.6})
    assert placing.claimed(wide, slow).ratio_high == 0.6


@given(st.floats(0.3, 1.5), st.floats(0.5, 2.0), st.floats(0.1, 0.9))
def test_the_search_is_asked_until_it_takes_what_it_may(
    off: float, power: float, target: float
) -> None:
    def forecast(cost: float) -> float:
        return off * cost**power

    asked, seen = Asked(target, target), list[float]()
    for _ in range(40):
        predicted = forecast(asked.bound)
        seen.append(predicted)
        if asked.near(predicted):
            break
        asked = asked.again(predicted)
    assert NEAR * target <= seen[-1] <= target


def test_the_best_forecast_is_the_one_just_within_the_target() -> None:
    asked = Asked(0.5, 10.0)
    best = None
    for predicted in (0.7, 0.6, 0.3, 0.48, 0.52, 0.4):
        if best is None or asked.better(predicted, best):
            best = predicted
    assert best == 0.48


def seen(label: str, found: Each, *, cpu: float, db: float = 15.0) -> Preview:
    return look(label=label, cpu=cpu, db=db).model_copy(update={"each": found, "key": label})


class Sourced:
    """What `preview.placed` asks of a job's material."""

    looking = tuple(SOURCES)

    def sources(self, indices: tuple[int, ...]) -> tuple[int, ...]:
        return indices


def test_a_look_is_left_out_by_what_it_loses_on_each_input_not_by_its_noise() -> None:
    looks = [
        seen("far", each(0.08), cpu=0.25, db=13.7),
        seen("near", each(0.01), cpu=0.3, db=12.8),
        seen("needless", each(0.08), cpu=0.3, db=13.7),
    ]
    found = front.split(preview.placed(Sourced(), looks))
    assert {one.key for one in found.front} == {"far", "near"}
    assert [(one.key, by.key) for one, by in found.behind] in (
        [("needless", "far")],
        [("needless", "near")],
    )
    behind = [one for one, _ in found.behind]
    first, rest = verdict.in_line(found.front, behind, Budget(), size_mib=4.0, ratio=0.35)
    assert [one.key for one in first] == ["near", "far", "needless"]  # no slower than it may be
    assert rest == []
    first, rest = verdict.in_line(found.front, behind, Budget(), size_mib=4.0, ratio=0.26)
    assert [one.key for one in first] == ["far", "near"]
    assert [one.key for one in rest] == ["needless"]


def test_looks_that_nobody_compared_by_input_are_told_by_their_noise() -> None:
    looks = [look(label="a", db=30.0), look(label="b", db=20.0)]
    assert preview.placed(Sourced(), looks) == looks
    assert [one.key for one in front.split(looks).front] == ["a"]
