"""Embeddings, scores and masks, each case worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compression import agreement
from compression.alike import numbers, vectors
from compression.findings import Agreement
from compression.job import OutputSpec


def spec(kind: str, **fields) -> OutputSpec:
    return OutputSpec(name="y", kind=kind, **fields)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def judged(found: OutputSpec, *pairs) -> Agreement:
    judge = agreement.Judge([found])
    for a, b in pairs:
        judge.add({"y": a}, {"y": b})
    return judge.agreement("held-out")


# --- Embeddings ---------------------------------------------------------------------------


def test_the_cosine_is_that_of_the_angle() -> None:
    for b, cosine in (((1, 1), math.sqrt(0.5)), ((0, 1), 0.0), ((-1, 0), 0.0), ((7, 0), 1.0)):
        assert agreement.score(spec("embedding"), row(1, 0), row(*b)) == pytest.approx(cosine)
    assert agreement.score(spec("embedding"), row(0, 0), row(0, 0)) == 1.0
    assert agreement.score(spec("embedding"), row(0, 0), row(0, 1)) == 0.0


def turned(degrees: float) -> np.ndarray:
    return row(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))


def test_neighbours_stay_or_change_by_hand() -> None:
    # Four pairs of near directions; the candidate turns one of a pair into another pair.
    ours = [turned(at) for at in (0, 5, 40, 45, 80, 85, 120, 125)]
    theirs = [*ours[:7], turned(45.1)]
    found = judged(spec("embedding"), *zip(ours, theirs, strict=True))
    # Lost: 125 itself, 120 (whose neighbour it was), 45 (now nearest to it). 40 keeps 45.
    assert found.value == pytest.approx(5 / 8)
    assert found.samples == 8
    assert found.also["cosine"] == pytest.approx((7 + math.cos(math.radians(79.9))) / 8, abs=1e-6)


def test_length_does_not_matter_to_neighbours() -> None:
    random = np.random.default_rng(0)
    ours = [random.normal(size=(1, 16)).astype(np.float32) for _ in range(20)]
    assert judged(spec("embedding"), *[(one, one * 3) for one in ours]).value == 1.0
    other = [(one, random.normal(size=(1, 16)).astype(np.float32)) for one in ours]
    assert judged(spec("embedding"), *other).value < 0.5


def test_with_few_samples_the_cosine_stands_in() -> None:
    found = judged(spec("embedding"), *[(turned(0), turned(60))] * 7)
    assert found.value == pytest.approx(0.5)


def test_equally_near_neighbours_are_all_right_and_a_dead_encoder_has_none() -> None:
    same = [turned(at) for at in (0, 0, 0, 90, 90, 90, 45, 45)]
    assert judged(spec("embedding"), *[(one, one) for one in same]).value == 1.0
    apart = [turned(at) for at in range(0, 88, 11)]
    dead = judged(spec("embedding"), *[(one, row(1, 1)) for one in apart])
    assert dead.value <= 0.25


def test_a_broken_vector_is_nobodys_neighbour() -> None:
    ours = [turned(at) for at in (0, 5, 40, 45, 80, 85, 120, 125)]
    theirs = [*ours[:7], row(math.nan, 0)]
    found = judged(spec("embedding"), *zip(ours, theirs, strict=True))
    assert found.value == pytest.approx(6 / 8)  # lost: itself, and 120 whose neighbour it was


def test_sequences_of_vectors_may_be_of_any_length() -> None:
    random = np.random.default_rng(0)
    ours = [random.normal(size=(1, length, 4)) for length in range(3, 13)]
    found = judged(spec("embedding"), *[(one, one) for one in ours])
    assert (found.value, found.samples) == (1.0, 10)


def test_large_vectors_are_kept_within_bounds() -> None:
    judge = agreement.Judge([spec("embedding")])
    for at in range(40):
        one = np.random.default_rng(at).normal(size=(1, 300_000)).astype(np.float32)
        judge.add({"y": one}, {"y": one})
    assert judge.agreement("held-out").samples == vectors.FEW
    assert judge.agreement("held-out").value == 1.0


# --- Scores -------------------------------------------------------------------------------


def test_scores_count_flips_across_the_threshold() -> None:
    original, candidate = row(0.2, 0.6, 0.9, 0.4), row(0.3, 0.4, 0.8, 0.45)
    assert agreement.score(spec("score"), original, candidate) == 0.75
    assert agreement.score(spec("score", threshold=0.35), original, candidate) == 1.0


def test_rank_correlation_is_spearmans() -> None:
    # Ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24).
    x, y = np.arange(5.0), np.array([2.0, 1, 4, 3, 50])
    assert numbers.rank_correlation(x, y) == pytest.approx(0.8)
    assert numbers.rank_correlation(x, -x) == -1.0
    assert numbers.ranks(np.array([7.0, 3, 7, 1])).tolist() == [3.5, 2, 3.5, 1]
    assert numbers.rank_correlation(x[:2], y[:2]) is None
    assert numbers.rank_correlation(x, np.ones(5)) == 0.0
    assert numbers.rank_correlation(np.ones(5), x) is None


def test_flips_are_judged_and_the_order_stands_beside() -> None:
    pairs = [(row(at / 10), row(at / 10 + 0.04)) for at in range(10)]
    found = judged(spec("score", threshold=0.55), *pairs)
    assert found.value == 1.0
    assert found.also == {"rank_correlation": pytest.approx(1.0)}
    # 0.4 becomes 0.44: below 0.42 before, above it after.
    assert judged(spec("score", threshold=0.42), *pairs).value == 0.9


def test_scores_without_a_threshold_that_all_lie_on_one_side_keep_their_order_or_not() -> None:
    values = np.random.default_rng(0).random(40) / 100
    kept = judged(spec("score"), *[(row(one), row(one * 2)) for one in values])
    assert kept.value == 1.0
    lost = judged(spec("score"), *[(row(one), row(0.005)) for one in values])
    assert lost.value == 0.0
    # With the threshold named, nothing crosses it.
    named = spec("score", threshold=0.5)
    assert judged(named, *[(row(one), row(0.005)) for one in values]).value == 1.0


def test_one_broken_score_is_not_hidden_by_the_order_of_the_others() -> None:
    values = np.linspace(0, 0.4, 20)
    pairs = [(row(one), row(one)) for one in values]
    found = judged(spec("score"), *pairs, (row(0.1), row(math.nan)))
    assert found.value == pytest.approx(20 / 21)


@given(arrays.arrays(np.float64, st.integers(3, 30), elements=st.floats(-9, 9)))
def test_rising_changes_keep_ranks(values: np.ndarray) -> None:
    found = numbers.rank_correlation(values, np.argsort(np.argsort(values)).astype(float))
    assert found is None or found > 0
    doubled = numbers.rank_correlation(values, values * 2.0)
    assert doubled == pytest.approx(1.0) or len(set(values)) == 1


# --- Masks --------------------------------------------------------------------------------


def test_masks_are_intersection_over_union() -> None:
    original = np.array([[[[1, 1], [1, 0]]]], np.float32)
    candidate = np.array([[[[1, 1], [0, 1]]]], np.float32)
    assert agreement.score(spec("mask"), original, candidate) == 0.5
    assert agreement.score(spec("mask"), original > 0, candidate > 0) == 0.5
    assert agreement.score(spec("mask", threshold=2), original, candidate) == 1.0  # both empty
    assert agreement.score(spec("mask"), original, original * 0) == 0.0


def test_masks_of_logits_have_their_threshold_at_zero() -> None:
    original, candidate = row(-5, 0.3, 4), row(-5, 0.2, -1)
    assert agreement.score(spec("mask"), original, candidate) == 0.5


def test_masks_per_class_are_averaged_over_the_classes_seen() -> None:
    # Pixels 0 0 1 1 against 0 1 1 1: 1/2 and 2/3; the third class is seen by neither.
    ours, theirs = (np.eye(3)[[0, 0, 1, 1]].T[None], np.eye(3)[[0, 1, 1, 1]].T[None])
    wanted = pytest.approx((1 / 2 + 2 / 3) / 2)
    assert agreement.score(spec("mask", axis=1), ours, theirs) == wanted
    classes = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert agreement.score(spec("mask"), *classes) == wanted
    assert judged(spec("mask", axis=1), (ours, theirs), (ours, ours)).value == pytest.approx(
        (1 + (1 / 2 + 2 / 3) / 2) / 2
    )
