"""What rounds say: ratios, noise, intervals, and which clock is believed."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.ruler import timing
from compression.ruler.timing import Round, Segment, Timed

MS = st.floats(0.01, 1000)
SEGMENTS = st.builds(Segment, wall_ms=MS, cpu_ms=st.one_of(st.just(0.0), MS))
ROUNDS = st.lists(
    st.builds(Round, SEGMENTS, SEGMENTS, SEGMENTS, steady=st.booleans()), min_size=1, max_size=30
)


def a_round(
    candidate: float,
    *,
    before: float = 1.0,
    after: float = 1.0,
    cpu: float | None = None,
    steady: bool = True,
) -> Round:
    """Wall times as given; the original's CPU time is 1 ms, the candidate's its wall time."""
    ours = Segment(candidate, candidate if cpu is None else cpu)
    return Round(Segment(before, 1.0), ours, Segment(after, 1.0), steady=steady)


def test_the_ratio_is_the_median_over_rounds_against_either_original() -> None:
    rounds = [a_round(2.0, before=1.0, after=4.0), a_round(0.5), a_round(90.0)]
    # 2, 1/2; 1/2, 1/2; 90, 90
    assert Timed(tuple(rounds)).ratio("wall") == 1.25


def test_times_with_a_long_tail_do_not_make_a_model_faster_than_itself() -> None:
    times = 1 + np.random.default_rng(0).exponential(0.5, (30_000, 3))
    rounds = [Round(*(Segment(one, one) for one in row)) for row in times]
    assert Timed(tuple(rounds)).ratio("wall") == pytest.approx(1.0, abs=0.01)


def test_a_drift_over_the_whole_run_leaves_the_ratio_alone() -> None:
    times = 1.01 ** np.arange(300)  # the device becomes three per cent slower each round
    rounds = [
        Round(Segment(a, a), Segment(0.7 * b, 0.7 * b), Segment(c, c))
        for a, b, c in times.reshape(100, 3)
    ]
    assert Timed(tuple(rounds)).ratio("wall") == pytest.approx(0.7, rel=1e-4)


def test_quiet_rounds_are_judged_by_wall_time() -> None:
    figures = Timed((a_round(0.8, after=1.04),) * 9).figures()
    assert figures["noise"] == pytest.approx(0.04)
    assert figures["ratio_basis"] == "wall"
    assert (
        figures["latency_ratio"] == figures["wall_ratio"] == pytest.approx((0.8 + 0.8 / 1.04) / 2)
    )


def test_noisy_rounds_are_judged_by_cpu_time_and_say_so() -> None:
    timed = Timed((a_round(0.8, after=1.06, cpu=0.5),) * 9)
    assert timed.figures()["ratio_basis"] == "cpu"
    assert timed.figures()["latency_ratio"] == timed.figures()["cpu_ratio"] == 0.5
    assert "by process CPU time: noise 6.0% is over 5%" in timed.method()["ratio"]


def test_a_candidate_that_alone_waited_for_the_cpu_is_judged_by_cpu_time() -> None:
    held_up = Timed((a_round(9.0, cpu=0.8),) * 9)
    assert held_up.noise() == 0.0
    assert held_up.figures()["ratio_basis"] == "cpu"
    assert "one of the two was held up by other work" in held_up.method()["ratio"]
    # Two threads that share the work are no disturbance: there CPU time is above wall time.
    shared = Round(Segment(0.6, 1.0), Segment(0.4, 0.4), Segment(0.6, 1.0))
    assert Timed((shared,) * 9).figures()["ratio_basis"] == "wall"


def test_a_clock_of_whole_ticks_is_never_the_judge() -> None:
    ticks = Round(Segment(1.0, 0.0), Segment(1.0, 10.0), Segment(2.0, 20.0))
    timed = Timed((ticks,) * 5)
    assert timed.noise() == 1.0
    assert timed.figures()["ratio_basis"] == "wall"
    assert timed.figures()["cpu_ratio"] == 1.0  # 10 ms over the mean of 0 and 20 ms
    assert "CPU time is too coarse here" in timed.method()["ratio"]


def test_without_any_cpu_time_the_ratio_is_one() -> None:
    still = Segment(1.0, 0.0)
    assert Timed((Round(still, still, still),)).figures()["cpu_ratio"] == 1.0


def test_rounds_in_which_the_clock_changed_are_thrown_away() -> None:
    done = [a_round(0.5), a_round(5.0, steady=False)] * 4
    timed = Timed.of(done, least=3)
    assert (len(timed.rounds), timed.thrown_away) == (4, 4)
    assert timed.ratio("wall") == 0.5
    assert "4 more thrown away" in timed.method()["latency"]


def test_where_the_clock_is_never_steady_all_rounds_count_and_that_is_said() -> None:
    done = [a_round(0.5, steady=False)] * 5 + [a_round(0.5)] * 2
    timed = Timed.of(done, least=3)
    assert (len(timed.rounds), timed.thrown_away) == (7, 0)
    assert "the clock changed in 5 of them, which count" in timed.method()["latency"]


def test_the_interval_narrows_with_rounds() -> None:
    spread = np.random.default_rng(0).normal(1.0, 0.1, 200)
    few, many = (Timed(tuple(a_round(x) for x in spread[:n])) for n in (10, 200))
    widths = [high - low for low, high in (few.interval("wall"), many.interval("wall"))]
    assert widths[1] < widths[0] / 2
    assert not few.tight()


def test_equal_rounds_are_tight() -> None:
    assert Timed((a_round(0.5),) * 5).tight()


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        spread = np.random.default_rng(seed).normal(0.8, 0.05, 30)
        low, high = Timed(tuple(a_round(x) for x in spread)).interval("wall")
        held += low <= 0.8 <= high
    assert 180 <= held <= 199


@given(ROUNDS, st.integers(1, 5))
def test_whatever_was_timed_the_figures_are_numbers_in_order(rounds, least) -> None:
    timed = Timed.of(rounds, least=least)
    figures = timed.figures()
    assert len(timed.rounds) + timed.thrown_away == len(rounds)
    assert all(np.isfinite(value) for value in figures.values() if not isinstance(value, str))
    assert figures["ratio_low"] <= figures["latency_ratio"] <= figures["ratio_high"]
    assert figures["latency_p50_ms"] <= figures["latency_p95_ms"]
    assert figures["latency_ratio"] == figures[f"{figures['ratio_basis']}_ratio"]
    assert timed.method() == timed.method()


@given(ROUNDS)
def test_the_order_of_the_rounds_changes_no_ratio(rounds) -> None:
    one, other = Timed(tuple(rounds)), Timed(tuple(reversed(rounds)))
    for basis in timing.FIELDS:
        assert one.ratio(basis) == pytest.approx(other.ratio(basis))


@given(ROUNDS, st.floats(0.1, 10))
def test_a_faster_device_changes_no_ratio(rounds, factor) -> None:
    def scaled(one: Segment) -> Segment:
        return Segment(one.wall_ms * factor, one.cpu_ms * factor)

    faster = [
        Round(scaled(each.before), scaled(each.candidate), scaled(each.after)) for each in rounds
    ]
    for timed, basis in itertools.product([Timed(tuple(faster))], timing.FIELDS):
        assert timed.ratio(basis) == pytest.approx(Timed(tuple(rounds)).ratio(basis))
