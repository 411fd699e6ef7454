"""The judge: which output is reported, its interval, and answers that can never agree."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compression import agreement
from compression.alike import interval
from compression.errors import BadInputs
from compression.job import OutputSpec
from compression.words import Words

KINDS = ("logits", "steps", "embedding", "detections", "mask", "score", "state", "tensor")
FLOATS = st.floats(-1e6, 1e6, width=32)
ANSWERS = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_side=7), elements=FLOATS)


def spec(kind: str, **fields) -> OutputSpec:
    return OutputSpec(name="y", kind=kind, **fields)


def row(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def judged(outputs: list[OutputSpec], *pairs) -> agreement.Judge:
    judge = agreement.Judge(outputs)
    for a, b in pairs:
        judge.add({"y": a}, {"y": b})
    return judge


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, "shape", "empty"])
def test_an_answer_with_nan_or_of_another_shape_never_agrees(kind: str, bad) -> None:
    a = np.full((1, 4, 6), 0.7, np.float32)
    b = np.full_like(a, math.nan)
    if bad == "shape":
        b = a[:, :, :4] if kind != "detections" else a[:, :, :2]
    elif bad == "empty":
        b = a[:, :0]
    if kind == "detections" and bad == "shape":
        with pytest.raises(BadInputs, match="do not fit"):
            judged([spec(kind, columns=("box", "score", "class"))], (a, b))
        return
    assert agreement.score(spec(kind), a, b) == 0.0
    found = judged([spec(kind)], *[(a, b)] * 10).agreement("held-out")
    assert (found.value, found.low) == (0.0, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_agrees_not_even_with_itself(kind: str) -> None:
    a = np.full((1, 4, 6), 0.7, np.float32)
    a[0, 1, 2] = math.nan
    assert agreement.score(spec(kind), a, a) < 0.01
    assert judged([spec(kind)], (a, a)).agreement("held-out").value < 0.01


def test_one_nan_among_good_samples_counts_as_a_miss() -> None:
    good, bad = row(1, 2, 3), row(1, math.nan, 3)
    found = judged([spec("logits")], *[(good, good)] * 9, (good, bad)).agreement("held-out")
    assert (found.value, found.samples) == (0.9, 10)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(a=ANSWERS)
def test_every_kind_agrees_fully_with_itself(kind: str, a: np.ndarray) -> None:
    assert agreement.score(spec(kind), a, a) == pytest.approx(1.0)
    found = judged([spec(kind)], (a, a), (a + 1, a + 1)).agreement("held-out")
    assert found.value == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(data=st.data(), count=st.integers(1, 12))
def test_the_agreement_lies_in_its_interval_and_that_within_bounds(kind, data, count: int) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=2, max_dims=3, min_side=5, max_side=7))
    answers = arrays.arrays(np.float32, shape, elements=st.floats(-2, 2, width=32))
    pairs = [(data.draw(answers), data.draw(answers)) for _ in range(count)]
    found = judged([spec(kind)], *pairs).agreement("held-out")
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.samples == count or kind == "embedding"  # there each vector is one


def test_equal_infinities_are_equal_and_others_an_error_without_bound() -> None:
    masked, other = row(1, -math.inf, 3), row(1, -1e4, 3)
    assert agreement.score(spec("tensor"), masked, masked) == 1.0
    assert agreement.score(spec("tensor"), masked, other) < 1e-9
    assert agreement.score(spec("logits"), masked, other) == 1.0


def test_equal_outputs_are_200_db_and_broken_ones_far_below_zero() -> None:
    judge = judged([spec("tensor")], (row(1, math.inf), row(1, math.inf)))
    assert judge.sqnr_db() == {"y": 200.0}
    judge.add({"y": row(1, 2)}, {"y": row(1, math.nan)})
    assert judge.sqnr_db()["y"] < -100


def test_doubles_whose_squares_are_no_numbers_are_judged_all_the_same() -> None:
    huge = np.array([[1e300, -2e300]])
    judge = judged([spec("tensor")], (huge, huge * 1.01), (huge, huge))
    assert judge.sqnr_db()["y"] < 10
    assert 0.0 <= judge.agreement("held-out").value <= 0.8
    assert judged([spec("tensor")], (huge, huge)).sqnr_db() == {"y": 200.0}


def test_tensors_are_the_signal_share() -> None:
    # Signal 100, error 1: 20 dB, and 100 / 101.
    found = agreement.score(spec("tensor"), row(10, 0), row(9, 0))
    assert found == pytest.approx(100 / 101)
    assert agreement.score(spec("state"), row(10, 0), row(9, 0)) == found
    assert agreement.sqnr_db(100, 1) == pytest.approx(20)


def test_outputs_of_text_are_compared_by_name() -> None:
    a, b = np.array(["cat", "dog"]), np.array(["cat", "cow"])
    found = judged([spec("logits")], (a, b)).agreement("held-out")
    assert found.value == 0.5
    assert agreement.score(spec("tensor"), a, b) == pytest.approx(2 / 3)


def test_the_least_agreeing_meant_output_is_the_one_reported() -> None:
    outputs = [
        OutputSpec(name="a", kind="logits"),
        OutputSpec(name="b", kind="logits", guessed=True),
        OutputSpec(name="h", kind="state"),
    ]
    judge = agreement.Judge(outputs)
    one, two = row(1, 2), row(2, 1)
    judge.add({"a": one, "b": one, "h": one}, {"a": one, "b": two, "h": row(50, 50)})
    found = judge.agreement("evaluation")
    assert (found.output, found.value, found.split) == ("b", 0.0, "evaluation")
    assert found.guessed


def test_a_guess_is_told_of_the_output_that_is_reported() -> None:
    a = row(1, 2)
    assert not judged([spec("logits")], (a, a)).agreement("held-out").guessed
    assert judged([spec("logits", guessed=True)], (a, a)).agreement("held-out").guessed
    assert judged([spec("logits")], (a, a)).agreement("held-out", guessed=True).guessed


def test_what_cannot_be_judged_is_one_clear_line() -> None:
    a = row(1, 2)
    with pytest.raises(BadInputs, match=r"cannot judge output 'y': the model gives \['z'\]"):
        agreement.Judge([spec("logits")]).add({"z": a}, {"z": a})
    with pytest.raises(BadInputs, match=r"output 'y' of shape \[1, 2\]: no axis 2"):
        judged([spec("logits", axis=2)], (a, a))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow_with_the_samples(kind: str) -> None:
    rng = np.random.default_rng(0)
    answers = [rng.random((1, 10, 6)).astype(np.float32) for _ in range(8)]
    judge = agreement.Judge([spec(kind)])

    def feed(count: int) -> None:
        for at in range(count):
            judge.add({"y": answers[at % 8]}, {"y": answers[(at + 3) % 8]})

    tracemalloc.start()
    feed(550 if kind == "embedding" else 150)  # as many vectors or pairs as are kept
    before = tracemalloc.get_traced_memory()[0]
    feed(400)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # A list of floats would be 13 kB; kept vectors of 24 bytes each make way for others.
    assert grown < (50_000 if kind == "embedding" else 10_000)


def test_wilson_interval_is_that_of_the_textbook() -> None:
    assert interval.wilson(0.95, 100) == pytest.approx((0.8882, 0.9785), abs=5e-4)
    low, high = interval.wilson(1.0, 100)
    assert (round(low, 3), high) == (0.963, 1.0)


def running(scores: list[float]) -> interval.Agreed:
    found = interval.Running()
    for one in scores:
        found.add(one)
    return found.agreed()


def test_yes_or_no_scores_have_wilsons_interval() -> None:
    found = running([1.0] * 95 + [0.0] * 5)
    assert (found.value, found.low, found.high) == (0.95, *interval.wilson(0.95, 100))


def test_the_bootstrap_is_that_of_the_normal_law_where_samples_are_many() -> None:
    scores = np.random.default_rng(1).uniform(0.4, 0.8, 400)
    found = running(scores.tolist())
    error = 1.96 * scores.std() / math.sqrt(400)
    assert found.low == pytest.approx(scores.mean() - error, abs=error / 5)
    assert found.high == pytest.approx(scores.mean() + error, abs=error / 5)
    assert running(scores.tolist()) == found  # seeded


def test_few_or_equal_scores_are_no_proof() -> None:
    assert running([0.7]).low < 0.3
    assert running([1.0] * 50) == running([1.0] * 50)
    assert running([1.0] * 50).low == interval.wilson(1.0, 50)[0]
    assert running([]).low < 0.5


def test_heavy_samples_count_for_what_they_hold() -> None:
    found = interval.Running()
    found.add(90, of=100)
    found.add(0, of=10)
    assert found.value == pytest.approx(90 / 110)
    # Kish: 110**2 / (100**2 + 10**2) samples.
    assert found.agreed().low == interval.wilson(90 / 110, 110**2 / 10100)[0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_intervals_hold_the_mean_and_stay_within_bounds(scores: list[float]) -> None:
    found = running(scores)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_an_agreement_is_words_that_cross_a_wire() -> None:
    found = judged([spec("embedding")], (row(1, 2), row(1, 2))).agreement("held-out")
    assert isinstance(found, Words)
    assert type(found).model_validate_json(found.to_json()) == found
