"""The user's own metric, of both models: each worked by hand, and through a real trial."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import agreement
from compression.alike import metrics
from compression.findings import Labelled
from compression.job import OutputSpec


def spec(kind: str, name: str = "y", **fields) -> OutputSpec:
    return OutputSpec(name=name, kind=kind, **fields)


def labelled(found: OutputSpec, *samples) -> dict[str, Labelled]:
    """Samples are (original's answer, candidate's answer, label)."""
    judge = agreement.Judge([found])
    for a, b, label in samples:
        judge.add({"y": np.asarray(a)}, {"y": np.asarray(b)}, np.asarray(label))
    return {one.metric: one for one in judge.labelled()}


def one_hot(*classes: int, of: int = 4) -> np.ndarray:
    return np.eye(of, dtype=np.float32)[list(classes)]


def test_accuracy_is_of_both_models_and_their_difference_has_an_interval() -> None:
    samples = [(one_hot(1), one_hot(1), 1)] * 70  # both right
    samples += [(one_hot(1), one_hot(2), 1)] * 20  # the candidate wrong
    samples += [(one_hot(2), one_hot(1), 1)] * 10  # the candidate right alone
    found = labelled(spec("logits"), *samples)["accuracy"]
    assert (found.original, found.candidate) == (pytest.approx(0.9), pytest.approx(0.8))
    assert found.samples == 100
    # Paired differences: -1 twenty times, 1 ten times, else 0: sd .539, error 1.96 * .0539.
    assert found.low == pytest.approx(-0.1 - 0.106, abs=0.03)
    assert found.high == pytest.approx(-0.1 + 0.106, abs=0.03)


def test_equal_models_differ_by_nothing() -> None:
    found = labelled(spec("logits"), *[(one_hot(1), one_hot(1), at % 2) for at in range(10)])
    only = found["accuracy"]
    assert (only.original, only.candidate, only.low, only.high) == (0.5, 0.5, 0.0, 0.0)


def test_classes_may_be_labelled_by_name() -> None:
    named = spec("logits", classes=("cat", "dog", "cow", "hen"))
    found = labelled(named, (one_hot(1), one_hot(2), "dog"), (one_hot(3), one_hot(3), "yak"))
    assert (found["accuracy"].original, found["accuracy"].candidate) == (0.5, 0.0)
    assert labelled(spec("logits"), (one_hot(1), one_hot(2), "dog")) == {}


def test_sequences_and_characters_of_numbers() -> None:
    reader = spec("steps", blank=0)
    read = one_hot(0, 1, 1, 0, 2, 3)[None]  # 1 2 3
    wrong = one_hot(0, 1, 1, 0, 2, 2)[None]  # 1 2
    found = labelled(reader, (read, wrong, [1, 2, 3, -1, -1]), (read, read, [1, 2, 2, -1, -1]))
    assert (found["sequences"].original, found["sequences"].candidate) == (0.5, 0.0)
    assert found["characters"].original == pytest.approx(5 / 6)
    assert found["characters"].candidate == pytest.approx(4 / 6)


def test_text_is_read_with_the_names_of_the_classes() -> None:
    reader = spec("steps", blank=0, classes=("", "a", "b", "c"))
    read = one_hot(1, 0, 1, 2, 2, 3)[None]
    found = labelled(reader, (read, one_hot(1, 0, 1, 2, 2, 2)[None], "aabc"))
    assert (found["sequences"].original, found["sequences"].candidate) == (1.0, 0.0)
    assert found["characters"].candidate == 0.75
    assert labelled(spec("steps", blank=0), (read, read, "aabc")) == {}


def test_edit_distance_by_hand() -> None:
    assert metrics.edit_distance("kitten", "sitting") == 3
    assert metrics.edit_distance("", "abc") == 3
    assert metrics.edit_distance("abc", "abc") == 0


@given(st.text("ab", max_size=8), st.text("ab", max_size=8), st.text("ab", max_size=8))
def test_edit_distance_is_a_distance(a: str, b: str, c: str) -> None:
    assert metrics.edit_distance(a, b) == metrics.edit_distance(b, a)
    assert metrics.edit_distance(a, c) <= metrics.edit_distance(a, b) + metrics.edit_distance(b, c)
    assert abs(len(a) - len(b)) <= metrics.edit_distance(a, b) <= max(len(a), len(b))


def test_auc_is_the_chance_that_yes_scores_above_no() -> None:
    # Of 2 x 2 pairs: 0.9 and 0.4 above 0.1; 0.9 above 0.6, 0.4 not.
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    assert metrics.auc(scores, np.array([1.0, 1, 0, 0])) == 0.75
    assert metrics.auc(np.ones(4), np.array([1.0, 1, 0, 0])) == 0.5
    assert metrics.auc(scores, np.ones(4)) is None
    pairs = [
        ([one], [1 - one], yes) for one, yes in zip(scores, [True, True, False, False], strict=True)
    ]
    found = labelled(spec("score"), *pairs * 5)["auc"]
    assert (found.original, found.candidate) == (0.75, 0.25)
    assert found.low < found.candidate - found.original < found.high


def test_scores_with_numbers_for_labels_are_correlated_by_rank() -> None:
    truth = np.arange(12.0)
    found = labelled(spec("score"), *[([one**2], [-one], one) for one in truth])
    only = found["rank_correlation"]
    assert (only.original, only.candidate) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_detections_are_judged_by_labelled_boxes() -> None:
    one, other = (0.0, 0, 10, 10), (20.0, 20, 40, 40)
    truth = np.array([[*one, 1], [*other, 2], [0, 0, 0, 0, -1]])
    rows = np.array([[*one, 0.9, 1], [*other, 0.9, 2]], np.float32)
    found = labelled(spec("detections"), (rows, rows[:1], truth))["f1"]
    assert (found.original, found.candidate) == (1.0, pytest.approx(2 / 3))


def test_masks_are_judged_by_labelled_regions() -> None:
    answer = np.array([[[[0.9, 0.8], [0.1, 0.2]]]], np.float32)
    found = labelled(spec("mask"), (answer, 1 - answer, np.array([[True, True], [True, False]])))
    assert found["iou"].original == pytest.approx(2 / 3)
    assert found["iou"].candidate == pytest.approx(1 / 4)


def test_a_broken_answer_is_a_wrong_one() -> None:
    found = labelled(spec("logits"), (one_hot(1), one_hot(1) * math.nan, 1))
    assert (found["accuracy"].original, found["accuracy"].candidate) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "answer", "label"),
    [
        ("logits", one_hot(1), 0.5),
        ("logits", one_hot(1), [1, 2]),
        ("steps", one_hot(1, 2)[None], [1, 2, 3]),
        ("score", [0.5], "yes"),
        ("mask", np.zeros((1, 1, 2, 2)), [1]),
        ("detections", np.zeros((1, 6)), [1, 2]),
        ("tensor", np.zeros(3), [1, 2, 3]),
        ("embedding", np.zeros((1, 3)), 1),
    ],
)
def test_labels_that_fit_no_output_are_left(kind: str, answer, label) -> None:
    assert labelled(spec(kind), (answer, answer, label)) == {}


def test_labels_that_fit_only_some_samples_are_left() -> None:
    samples = [(one_hot(1), one_hot(1), 1), (one_hot(1), one_hot(1), [1, 2])]
    assert labelled(spec("logits"), *samples) == {}
    assert labelled(spec("logits"), *reversed(samples)) == {}


def test_labels_belong_to_the_first_output_that_they_fit() -> None:
    judge = agreement.Judge([spec("tensor", "t"), spec("logits", "a"), spec("logits", "b")])
    answers = {"t": np.zeros(3), "a": one_hot(1), "b": one_hot(2)}
    judge.add(answers, answers, np.array(1))
    assert [(one.output, one.original) for one in judge.labelled()] == [("a", 1.0)]
