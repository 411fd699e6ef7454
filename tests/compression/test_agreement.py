"""Agreement by kind, each worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import agreement
from compression.job import OutputSpec


def spec(kind: str, **fields) -> OutputSpec:
    return OutputSpec(name="y", kind=kind, **fields)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def test_logits_agree_when_the_largest_class_is_the_same() -> None:
    assert agreement.score(spec("logits"), row(1, 3, 2), row(0, 9, 8)) == 1.0
    assert agreement.score(spec("logits"), row(1, 3, 2), row(0, 8, 9)) == 0.0


def test_steps_leave_out_where_both_are_blank() -> None:
    original = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]][None]
    candidate = np.eye(3, dtype=np.float32)[[0, 1, 1, 0]][None]
    assert agreement.score(spec("steps", blank=0), original, candidate) == 0.5
    assert agreement.score(spec("steps"), original, candidate) == 0.75


def test_scores_count_flips_across_the_threshold() -> None:
    original, candidate = row(0.2, 0.6, 0.9, 0.4), row(0.3, 0.4, 0.8, 0.45)
    assert agreement.score(spec("score"), original, candidate) == 0.75
    assert agreement.score(spec("score", threshold=0.35), original, candidate) == 1.0


def test_masks_are_intersection_over_union() -> None:
    original = np.array([[[[1, 1], [1, 0]]]], np.float32)
    candidate = np.array([[[[1, 1], [0, 1]]]], np.float32)
    assert agreement.score(spec("mask"), original, candidate) == 0.5


def test_tensors_are_the_signal_share() -> None:
    # Signal 100, error 1: 20 dB, and 100 / 101.
    found = agreement.score(spec("tensor"), row(10, 0), row(9, 0))
    assert found == pytest.approx(100 / 101)
    assert agreement.sqnr_db(100, 1) == pytest.approx(20)


def test_embeddings_keep_their_neighbours_or_not() -> None:
    random = np.random.default_rng(0)
    rows = [random.normal(size=(1, 16)).astype(np.float32) for _ in range(20)]
    same, other = (agreement.Judge([spec("embedding")]) for _ in range(2))
    for one in rows:
        same.add({"y": one}, {"y": one * 3})
        other.add({"y": one}, {"y": random.normal(size=(1, 16)).astype(np.float32)})
    assert same.agreement("held-out").value == 1.0
    assert other.agreement("held-out").value < 0.5


@pytest.mark.parametrize("kind", sorted(agreement.RULES))
def test_an_answer_that_is_not_finite_or_has_another_shape_never_agrees(kind: str) -> None:
    a = np.full((1, 4, 3), 0.7, np.float32)
    assert agreement.score(spec(kind), a, np.full_like(a, np.nan)) == 0.0
    assert agreement.score(spec(kind), a, a[:, :2]) == 0.0


@pytest.mark.parametrize("kind", sorted(agreement.RULES))
def test_every_kind_agrees_fully_with_itself(kind: str) -> None:
    a = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    assert agreement.score(spec(kind), a, a) == pytest.approx(1.0)


def test_equal_outputs_are_200_db_and_broken_ones_far_below_zero() -> None:
    judge = agreement.Judge([spec("tensor")])
    judge.add({"y": row(1, np.inf)}, {"y": row(1, np.inf)})
    assert judge.sqnr_db() == {"y": 200.0}
    judge.add({"y": row(1, 2)}, {"y": row(1, np.nan)})
    assert judge.sqnr_db()["y"] < -100


def test_the_least_agreeing_meant_output_is_the_one_reported() -> None:
    outputs = [
        OutputSpec(name="a", kind="logits"),
        OutputSpec(name="b", kind="logits"),
        OutputSpec(name="h", kind="state"),
    ]
    judge = agreement.Judge(outputs)
    one, two = row(1, 2), row(2, 1)
    judge.add({"a": one, "b": one, "h": one}, {"a": one, "b": two, "h": row(50, 50)})
    found = judge.agreement("evaluation")
    assert (found.output, found.value, found.split) == ("b", 0.0, "evaluation")


def test_wilson_interval_is_that_of_the_textbook() -> None:
    scores = np.array([1.0] * 95 + [0.0] * 5)
    assert agreement.interval(scores) == pytest.approx((0.8882, 0.9785), abs=5e-4)
    low, high = agreement.interval(np.ones(100))
    assert (round(low, 3), high) == (0.963, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_intervals_hold_the_mean_and_stay_within_bounds(scores: list[float]) -> None:
    low, high = agreement.interval(np.array(scores))
    assert 0 <= low <= np.mean(scores) + 1e-9
    assert np.mean(scores) - 1e-9 <= high <= 1
