"""Logits and steps, each case worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import agreement
from compression.alike import classes, steps
from compression.findings import Agreement
from compression.job import OutputSpec


def spec(kind: str = "logits", **fields) -> OutputSpec:
    return OutputSpec(name="y", kind=kind, **fields)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def spelled(*read: int, of: int = 4) -> np.ndarray:
    """Steps [1, T, C] that answer these classes."""
    return np.eye(of, dtype=np.float32)[list(read)][None]


def judged(found: OutputSpec, *pairs) -> Agreement:
    judge = agreement.Judge([found])
    for a, b in pairs:
        judge.add({"y": a}, {"y": b})
    return judge.agreement("held-out")


def test_logits_agree_when_the_largest_class_is_the_same() -> None:
    assert agreement.score(spec(), row(1, 3, 2), row(0, 9, 8)) == 1.0
    assert agreement.score(spec(), row(1, 3, 2), row(0, 8, 9)) == 0.0


def test_an_answer_among_the_originals_equal_best_agrees() -> None:
    tied = row(1, 5, 5)
    assert agreement.score(spec(), tied, row(0, 2, 3)) == 1.0
    assert agreement.score(spec(), tied, row(0, 3, 2)) == 1.0
    assert agreement.score(spec(), tied, row(3, 2, 2)) == 0.0
    assert agreement.score(spec(), tied, tied) == 1.0


def test_a_candidate_that_answers_all_alike_does_not_agree_with_everything() -> None:
    dead = np.zeros((1, 3), np.float32)
    scores = [agreement.score(spec(), row(*np.eye(3)[at]), dead) for at in range(3)]
    assert scores == [1.0, 0.0, 0.0]  # it answers the first class, as every argmax says


def test_rows_of_one_sample_share_it() -> None:
    a = np.array([[1, 2], [2, 1], [1, 2], [2, 1]], np.float32)
    b = np.array([[1, 2], [2, 1], [2, 1], [2, 1]], np.float32)
    assert agreement.score(spec(), a, b) == 0.75
    assert agreement.score(spec(axis=0), a, b) == 1.0


def test_whole_numbers_are_the_classes_themselves() -> None:
    a, b = np.array([3, 1, 2]), np.array([3, 1, 0])
    assert agreement.score(spec(), a, b) == pytest.approx(2 / 3)
    # Unless an axis is named: then they are quantized figures per class.
    assert agreement.score(spec(axis=-1), np.array([[3, 9]]), np.array([[4, 5]])) == 1.0


def test_the_divergence_of_probabilities_stands_beside() -> None:
    # KL((1/2, 1/2) || (1/4, 3/4)) = ln(4/3) / 2.
    found = judged(spec(), (row(0.5, 0.5), row(0.25, 0.75)))
    assert found.also["kl_nats"] == pytest.approx(math.log(4 / 3) / 2)
    # Logits are made probabilities first: a constant added to all changes nothing.
    found = judged(spec(), (row(10, 12), row(110, 112)))
    assert found.also["kl_nats"] == pytest.approx(0.0, abs=1e-6)


def test_classes_have_no_divergence() -> None:
    assert judged(spec(), (np.array([1]), np.array([1]))).also == {}


def test_steps_leave_out_where_both_are_blank() -> None:
    original, candidate = spelled(0, 1, 2, 0), spelled(0, 1, 1, 0)
    assert agreement.score(spec("steps", blank=0), original, candidate) == 0.5
    assert agreement.score(spec("steps"), original, candidate) == 0.75
    assert agreement.score(spec("steps", blank=0), spelled(0, 0), spelled(0, 0)) == 1.0


def test_steps_of_all_samples_count_alike() -> None:
    found = judged(
        spec("steps", blank=0),
        (spelled(1, 2, 3, 1), spelled(1, 2, 3, 1)),
        (spelled(0, 0, 0, 1), spelled(0, 0, 0, 2)),
    )
    assert found.value == pytest.approx(4 / 5)
    assert found.also["all_steps"] == pytest.approx(7 / 8)
    assert found.also["sequences"] == 0.5


def test_a_blank_that_nobody_named_is_what_most_steps_are() -> None:
    pairs = [(spelled(3, 3, 3, 1), spelled(3, 3, 3, 2))] * 3
    found = judged(spec("steps"), *pairs)
    assert (found.value, found.also["all_steps"]) == (0.0, 0.75)
    # Half of the steps is no majority: then all of them count.
    found = judged(spec("steps"), (spelled(3, 3, 1, 2), spelled(3, 3, 1, 1)))
    assert found.value == 0.75


def test_the_majority_holds_for_later_samples_and_for_those_held_back() -> None:
    mostly_blank = (spelled(3, 3, 3, 1), spelled(3, 3, 3, 1))
    judge = agreement.Judge([spec("steps")])
    for _ in range(steps.UNDECIDED + 5):
        judge.add({"y": mostly_blank[0]}, {"y": mostly_blank[1]})
    judge.add({"y": spelled(2, 2)}, {"y": spelled(2, 3)})
    count = steps.UNDECIDED + 5
    assert judge.agreement("held-out").value == pytest.approx((count + 1) / (count + 2))


def test_sequences_are_read_as_ctc_reads_them() -> None:
    assert steps.collapse(np.array([0, 1, 1, 0, 1, 2, 2, 0]), 0) == [1, 1, 2]
    assert steps.collapse(np.array([1, 1, 2]), None) == [1, 1, 2]
    assert steps.collapse(np.array([], np.int64), 0) == []
    # Another step, the same text.
    found = judged(spec("steps", blank=0), (spelled(0, 1, 1, 2), spelled(0, 1, 2, 2)))
    assert found.also["sequences"] == 1.0
    assert found.value == pytest.approx(2 / 3)


def test_time_may_come_before_the_batch() -> None:
    read = spelled(0, 1, 2, 3)
    swapped = read.transpose(1, 0, 2)
    for blank in (0, None):
        one = judged(spec("steps", blank=blank), (read, spelled(0, 1, 2, 2)))
        other = judged(
            spec("steps", blank=blank), (swapped, spelled(0, 1, 2, 2).transpose(1, 0, 2))
        )
        assert (one.value, one.also) == (other.value, other.also)


def test_classes_may_come_before_time() -> None:
    a, b = spelled(0, 1, 2, 0).transpose(0, 2, 1), spelled(0, 1, 1, 0).transpose(0, 2, 1)
    assert agreement.score(spec("steps", blank=0, axis=1), a, b) == 0.5


def test_an_answer_without_steps_counts_as_all_of_them_missed() -> None:
    good = spelled(1, 2, 3, 1)
    found = judged(spec("steps", blank=0), (good, good), (good, np.full_like(good, math.nan)))
    assert found.value == 0.5
    assert found.also["sequences"] == 0.5


@given(st.lists(st.integers(0, 3), max_size=12), st.data())
def test_repeating_steps_and_adding_blanks_around_changes_no_sequence(read, data) -> None:
    longer: list[int] = [0]
    for at, one in enumerate(read):
        if at and read[at - 1] == one:
            longer.append(0)
        longer += [one] * data.draw(st.integers(1, 3)) + [0] * data.draw(st.integers(0, 1))
    wanted = [one for one in read if one]
    assert steps.collapse(np.array(longer), 0) == wanted


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_rows_agree_with_any_rising_change_of_themselves(rows: int, width: int, seed: int) -> None:
    a = np.random.default_rng(seed).integers(-3, 4, (rows, width)).astype(np.float32)
    assert classes.same(spec(), a, a * 2 + 1).all()
