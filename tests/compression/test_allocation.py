"""The search over options: against every combination tried, on problems small enough for that."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.choosing import allocation, frontier
from compression.choosing.allocation import Pair, Part, Problem

WHOLE = st.integers(0, 12)


def _array(draw: st.DrawFn, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    values = draw(st.lists(WHOLE, min_size=count, max_size=count))
    return np.array(values, np.float64).reshape(shape)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to five parts of up to four options, any pairs of them, whole numbers."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    parts = tuple(Part(*(_array(draw, count) for _ in range(3))) for count in counts)
    every = list(itertools.combinations(range(len(counts)), 2))
    keys = draw(st.lists(st.sampled_from(every), unique=True, max_size=5)) if every else []
    pairs = {(a, b): Pair(*(_array(draw, counts[a], counts[b]) for _ in range(2))) for a, b in keys}
    return Problem(parts, pairs)


def every(problem: Problem) -> list[allocation.Selection]:
    options = [range(len(part.error)) for part in problem.parts]
    return [problem.cost(one) for one in itertools.product(*options)]


def fine(problem: Problem, time: float) -> int:
    """So many steps that whole numbers are hit exactly."""
    terms = frontier.Terms(
        tuple(part.error for part in problem.parts),
        tuple(part.time for part in problem.parts),
        {},
        {key: pair.time for key, pair in problem.pairs.items()},
    )
    least = sum(frontier._least_time(terms, part) for part in range(len(problem.parts)))
    return max(1, int(time - least))


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 80))
def test_the_least_error_within_a_time_is_found(problem: Problem, time: int) -> None:
    fitting = [one.error for one in every(problem) if one.time <= time]
    found = allocation.cheapest(problem, time=time, buckets=fine(problem, time))
    assert (found is None) == (not fitting)
    if found is not None:
        assert found.time <= time
        assert found.error == min(fitting)
        assert problem.cost(found.options) == found


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 80), st.integers(0, 80))
def test_within_a_size_nothing_as_small_has_less_error(
    problem: Problem, time: int, size: int
) -> None:
    fitting = [one for one in every(problem) if one.time <= time and one.size <= size]
    found = allocation.cheapest(problem, time=time, size=size, buckets=fine(problem, time))
    assert (found is None) == (not fitting)
    if found is not None:
        assert found.time <= time
        assert found.size <= size
        assert found.error == min(one.error for one in fitting if one.size <= found.size)


@settings(max_examples=80, deadline=None)
@given(problems(), st.floats(0.0, 80.0), st.integers(1, 40))
def test_coarse_steps_of_time_never_go_over_the_bound(
    problem: Problem, time: float, buckets: int
) -> None:
    found = allocation.cheapest(problem, time=time, buckets=buckets)
    if found is not None:
        assert found.time <= time * (1 + 1e-6)
        assert found.error >= min(one.error for one in every(problem) if one.time <= time)


@settings(max_examples=60, deadline=None)
@given(problems(), st.lists(st.integers(0, 80), min_size=1, max_size=5))
def test_a_front_holds_only_what_no_other_beats(problem: Problem, times: list[int]) -> None:
    found = allocation.front(problem, times=times)
    assert len({one.options for one in found}) == len(found)
    for a, b in itertools.permutations(found, 2):
        assert a.error < b.error or a.time < b.time or a.size < b.size


def test_pairs_beyond_the_table_are_split_and_the_bound_still_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frontier, "MOST_ROWS", 16)
    random = np.random.default_rng(1)
    parts = tuple(Part(np.array([0.0, 1, 3, 7]), np.array([4.0, 3, 2, 1]), np.zeros(4))
                  for _ in range(6))  # fmt: skip
    pairs = {
        key: Pair(np.outer([4, 3, 2, 1], [4, 3, 2, 1]) * random.uniform(0.5, 1.5), np.zeros((4, 4)))
        for key in itertools.combinations(range(6), 2)
    }
    problem = Problem(parts, pairs)
    whole = problem.cost((0,) * 6).time
    fitting = [one for one in every(problem) if one.time <= 0.5 * whole]
    found = allocation.cheapest(problem, time=0.5 * whole)
    assert found is not None
    assert found.time <= 0.5 * whole
    assert found.error <= 1.25 * min(one.error for one in fitting)


def test_thirty_layers_in_a_chain_beside_a_hub_are_few_rows() -> None:
    # A residual stream: one part that all others meet, and each other its neighbour.
    levels = np.array([1.0, 0.75, 0.5, 0.25])
    parts = tuple(Part((1 - levels) ** 2 * at, 0.1 * levels, levels) for at in range(1, 31))
    both = Pair(np.outer(levels, levels), np.outer(levels, levels))
    pairs = {(0, at): both for at in range(2, 30)} | {(at, at + 1): both for at in range(29)}
    problem = Problem(parts, pairs)
    whole = problem.cost((0,) * 30)
    found = allocation.cheapest(problem, time=0.4 * whole.time, size=0.3 * whole.size)
    assert found is not None
    assert found.time <= 0.4 * whole.time
    assert found.size <= 0.3 * whole.size
    # The hub costs least and saves most: it goes first.
    assert found.options[0] == 3


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 80))
def test_the_fastest_is_about_as_fast_as_anything_is(problem: Problem, size: int) -> None:
    able = [one for one in every(problem) if one.size <= size]
    within = max(one.time for one in every(problem))
    found = allocation.fastest(problem, over=-1.0, within=within, size=size)
    if found is None:
        # The size enters by a multiplier: that misses options which no multiplier prefers.
        assert allocation.cheapest(problem, time=within, size=size) is None
        return
    assert found in able
    if size >= max(one.size for one in every(problem)):
        assert found.time <= min(one.time for one in able) + 0.05 * (within + 1.0) + 1.0
