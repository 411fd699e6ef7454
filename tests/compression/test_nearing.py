"""Between a cut that is deep enough and one that answers alike: where the search looks next."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.choosing import nearing
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.findings import Agreement, Measurement
from compression.job import Budget, Recipe, TrialJob
from compression.stream import Done, Failed
from tests.compression import parent, small_jobs
from tests.compression.pretended import pretend

BUDGET = Budget(min_agreement=0.98)
FAST, SMALL = Bounds(ratio=0.1), Bounds(size_bytes=1000.0)


def look(times: float, value: float | None) -> Preview:
    """A look that takes so many times the bounds."""
    agreement = None if value is None else Agreement(
        value=value, low=value - 0.01, high=1.0, kind="logits", output="y", samples=60,
        split="choosing",
    )  # fmt: skip
    return Preview(
        recipe=Recipe(label=f"{times}"), key=f"{times} {value}", path=Path("x"),
        size_bytes=round(1000 * times), cpu_ratio=0.1 * times, agreement=agreement,
    )  # fmt: skip


@pytest.mark.parametrize("wanted", [FAST, SMALL, Bounds(ratio=0.1, size_bytes=1000.0)])
def test_it_is_the_middle_between_the_deepest_alike_and_what_is_below_it(wanted: Bounds) -> None:
    looks = [look(1, 0.5), look(2, 0.7), look(8, 0.99), look(20, 1.0), look(30, 0.6)]
    found = nearing.gap(looks, looks, wanted, BUDGET)
    assert found is not None
    assert (found.otherwise, found.alike, found.middle) == pytest.approx((2, 8, 4))


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [look(1, 0.5)],  # nothing is alike
        [look(1.1, 0.99), look(8, 1.0)],  # the bounds are near
        [look(0.9, 0.99), look(0.5, 0.2)],  # it is kept
        [look(4, 0.5), look(4.4, 0.99)],  # next to one another
    ],
)
def test_nothing_is_open_where_nothing_is_between(looks: list[Preview]) -> None:
    assert nearing.gap(looks, looks, FAST, BUDGET) is None


def test_where_nothing_was_too_deep_the_bounds_are_the_other_end() -> None:
    looks = [look(4, None), look(9, 0.99)]  # what could not be made tells nothing
    assert nearing.gap(looks, looks, FAST, BUDGET) == nearing.Gap(
        otherwise=1.0, alike=pytest.approx(9)
    )


def test_what_is_not_cut_does_not_say_how_deep_is_too_deep() -> None:
    whole = [look(20, 0.5), look(22, 0.99)]
    cuts = [look(3, 0.6)]
    found = nearing.gap([*whole, *cuts], cuts, FAST, BUDGET)
    assert found == nearing.Gap(otherwise=pytest.approx(3), alike=pytest.approx(22))


def test_what_lies_within_the_bounds_was_looked_for_already() -> None:
    looks = [look(0.5, 0.2), look(3, 0.99)]
    found = nearing.gap(looks, looks, FAST, BUDGET)
    assert found == nearing.Gap(otherwise=1.0, alike=pytest.approx(3))
    near = [look(0.5, 0.2), look(1.1, 0.99)]
    assert nearing.gap(near, near, FAST, BUDGET) is None


def test_memory_is_brought_down_elsewhere() -> None:
    looks = [look(1, 0.5), look(8, 0.99)]
    assert nearing.gap(looks, looks, Bounds(peak_mib=3.0), BUDGET) is None


@given(limit=st.floats(1.05, 40.0), start=st.floats(41.0, 400.0))
def test_halving_comes_as_near_as_is_said_to_what_is_alike(limit: float, start: float) -> None:
    looks = [look(1, 0.5), look(start, 1.0)]
    asked = 0
    while found := nearing.gap(looks, looks, FAST, BUDGET):
        looks.append(look(found.middle, 0.99 if found.middle >= limit else 0.5))
        asked += 1
    best = min(one.cpu_ratio for one in looks if one.agreement and one.agreement.value > 0.98) / 0.1
    assert limit <= best * 1.001
    assert best <= limit * nearing.CLOSE * 1.001
    assert asked <= 8


@pytest.mark.parametrize(
    "trial", [pretend, pytest.param(parent.run_trial, marks=pytest.mark.prove)], ids=["told", "run"]
)
def test_a_refusal_names_a_cut_that_answers_alike(
    trial: Callable[[TrialJob], Measurement | Failed], tmp_path: Path
) -> None:
    budget = Budget(size_ratio=0.02, min_agreement=0.75)
    said = parent.follow(small_jobs.of_mlp(tmp_path, minutes=10, budget=budget), trial=trial)
    assert isinstance(said[-1], Done), said[-1]
    nearest, *others = said[-1].ladder.rungs
    assert nearest.recipe.passes[0].name == "structured_pruning"
    (missed,) = nearest.misses
    assert missed.startswith("size ratio")
    whole = [one for one in others if one.recipe.passes[:1] != nearest.recipe.passes[:1]]
    sizes = [one.measurement.size_mib for one in whole if len(one.misses) == 1]
    assert nearest.measurement.size_mib < 0.9 * min(sizes)
