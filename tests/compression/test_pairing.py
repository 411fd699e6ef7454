"""Whether one variant is better than another beyond chance: agreement and loss, input by input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import pairing
from compression.job import OutputSpec

LOGITS = OutputSpec(name="y", kind="logits")
RANDOM = np.random.default_rng(7)


def row(best: int, *, margin: float = 4.0) -> dict[str, np.ndarray]:
    """Logits of one sample that choose the class `best`."""
    values = np.zeros((1, 4), np.float32)
    values[0, best] = margin
    return {"y": values}


def judged(before: list[dict], after: list[dict], *, sources: list[int] | None = None):
    """The verdict on two variants of an original that answers class 0 everywhere."""
    pairs = pairing.Pairs([LOGITS])
    for at, (ours, theirs) in enumerate(zip(before, after, strict=True)):
        pairs.add(row(0), ours, theirs, source=at if sources is None else sources[at])
    return pairs.verdict()


def test_answers_and_loss_that_improve_are_better() -> None:
    before = [row(1)] * 12 + [row(0, margin=2.0)] * 48
    found = judged(before, [row(0)] * 60)
    assert found.better
    assert (found.agreement.before, found.agreement.after) == (0.8, 1.0)
    assert "agreement 0.8000 -> 1.0000" in found.reason
    assert found.samples == 60


def test_a_lower_loss_alone_is_not_enough() -> None:
    before = [row(0, margin=1.0)] * 57 + [row(1)] * 3
    after = [row(0, margin=4.0)] * 56 + [row(1)] * 4
    found = judged(before, after)
    assert found.loss.after < found.loss.before
    assert not found.better
    assert found.reason.startswith("no better beyond chance in agreement:")


def test_more_equal_answers_at_a_higher_loss_are_not_enough() -> None:
    before = [row(1, margin=0.1)] * 12 + [row(0)] * 48
    after = [row(0)] * 12 + [row(0, margin=40.0)] * 48
    found = judged(before, after)
    assert found.agreement.chance < pairing.LEVEL
    assert not found.better
    assert found.reason.startswith("no better beyond chance in loss:")


def test_what_no_input_speaks_against_is_promising() -> None:
    few = judged([row(1)] * 2 + [row(0, margin=2.0)] * 8, [row(0)] * 10)
    assert (few.better, few.promising) == (False, True)
    fewer = judged([row(0, margin=1.0)] * 10, [row(1)] + [row(0)] * 9)
    assert not fewer.promising
    louder = judged([row(0)] * 10, [row(0, margin=1.0)] * 10)
    assert not louder.promising


def test_eight_inputs_need_all_but_everything_to_be_better() -> None:
    assert not judged([row(1)] * 5 + [row(0)] * 3, [row(0)] * 8).better
    assert judged([row(1)] * 8, [row(0)] * 8).better


def test_copies_of_one_source_count_once() -> None:
    before, after = [row(1)] * 40, [row(0)] * 40
    assert judged(before, after).better
    assert not judged(before, after, sources=[at % 4 for at in range(40)]).better


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_never_better(broken: float) -> None:
    bad = {"y": np.full((1, 4), broken, np.float32)}
    assert not judged([row(1)] * 30, [bad] * 30).better
    assert not judged([bad] * 30, [bad] * 30).better


def test_what_agreed_everywhere_already_cannot_gain_by_answers() -> None:
    before = [row(0, margin=1.0)] * 40
    after = [row(0, margin=1.0)] * 40
    assert not judged(before, after).better


def test_another_output_may_not_get_worse() -> None:
    specs = [LOGITS, OutputSpec(name="z", kind="logits")]
    pairs = pairing.Pairs(specs)
    for at in range(30):
        good, bad = row(0)["y"], row(1)["y"]
        pairs.add(
            {"y": good, "z": good}, {"y": bad, "z": good if at else bad},
            {"y": good, "z": bad}, source=at,
        )  # fmt: skip
    found = pairs.verdict()
    assert not found.better
    assert found.reason.startswith("output 'z' became worse")


def test_steps_without_a_named_blank_are_judged_without_it() -> None:
    spec = OutputSpec(name="y", kind="steps")

    def steps(*classes: int) -> dict[str, np.ndarray]:
        return {"y": np.eye(3, dtype=np.float32)[list(classes)][None] * 5}

    original, wrong = steps(0, 0, 0, 1), steps(0, 0, 0, 2)
    pairs = pairing.Pairs([spec], first=[original])
    for at in range(10):
        pairs.add(original, wrong, original, source=at)
    assert pairs.verdict().agreement.before == 0.0


def test_scores_that_never_cross_are_judged_by_how_near_they_are() -> None:
    spec = OutputSpec(name="y", kind="score")
    pairs = pairing.Pairs([spec])
    for at in range(20):
        level = 0.1 + at / 100
        pairs.add(*({"y": np.array([[level + by]], np.float32)} for by in (0.0, 0.05, 0.01)),
                  source=at)  # fmt: skip
    found = pairs.verdict()
    assert found.better
    assert found.agreement.before < found.agreement.after < 1.0


def test_detections_are_judged_by_what_they_hit() -> None:
    spec = OutputSpec(name="y", kind="detections", columns=("box", "score", "class"))
    there = np.array([[[10, 10, 20, 20, 0.9, 1]]], np.float32)
    away = np.array([[[60, 60, 70, 70, 0.9, 1]]], np.float32)
    pairs = pairing.Pairs([spec])
    for at in range(10):
        pairs.add({"y": there}, {"y": away}, {"y": there}, source=at)
    found = pairs.verdict()
    assert found.better
    assert (found.agreement.before, found.agreement.after) == (0.0, 1.0)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_chance_is_the_share_of_all_signs_that_do_as_well(gains: list[int]) -> None:
    every = [
        sum(sign * abs(gain) for sign, gain in zip(signs, gains, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(gains))
    ]
    expected = sum(one >= sum(gains) for one in every) / len(every)
    found = pairing.chance(np.array(gains, np.float64), range(len(gains)))
    assert found == pytest.approx(expected if any(gains) else 1.0)


def test_chance_is_rarely_small_where_nothing_is_better() -> None:
    small = sum(
        pairing.chance(RANDOM.normal(size=40), range(40)) <= pairing.LEVEL for _ in range(200)
    )
    assert small <= 13  # 5 expected; more than 13 of 200 in one of a thousand such tests
