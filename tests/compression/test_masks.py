"""Masks take as many as they are asked for, the least first; the others take over what they can."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.passes import feedback
from compression.pruning import masked_fitting, masks, shares
from compression.pruning.least_squares import Sums
from compression.pruning.masks import Pattern


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def alike(inputs: int, rows: int = 400, seed: int = 0) -> np.ndarray:
    """Rows of inputs that say much of one another, [1, rows, inputs]."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, max(1, inputs // 3)))
    mixed = hidden @ rng.normal(size=(hidden.shape[1], inputs))
    return (mixed + 0.1 * rng.normal(size=mixed.shape))[None].astype(np.float32)


scores = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 70)).flatmap(
    lambda shape: st.builds(
        lambda seed, ties: np.round(np.abs(normal(*shape, seed=seed)), 1 if ties else 9),
        st.integers(0, 99),
        st.booleans(),
    )
)


@settings(deadline=None, max_examples=50)
@given(scores, st.floats(0.01, 0.99))
def test_of_each_row_the_same_share_stays_and_it_is_the_highest(
    given_: np.ndarray, share: float
) -> None:
    keep = Pattern(share).keep(given_)
    gone = round(share * given_.shape[-1])
    assert ((~keep).sum(-1) == gone).all()
    lowest = np.where(keep, given_, np.inf).min(-1)
    assert (np.where(keep, -np.inf, given_).max(-1) <= lowest).all()


@settings(deadline=None, max_examples=50)
@given(scores, st.floats(0.01, 0.99))
def test_of_a_layer_its_share_goes_wherever_it_lies(given_: np.ndarray, share: float) -> None:
    keep = Pattern(share, "layer").keep(given_)
    assert (~keep).sum() == round(share * given_.size)
    assert given_[~keep].max(initial=0.0) <= given_[keep].min(initial=np.inf)


@settings(deadline=None, max_examples=50)
@given(scores, st.sampled_from([(1, 2), (2, 4), (1, 4), (4, 8)]))
def test_n_of_each_m_neighbours_stay(given_: np.ndarray, n_of_m: tuple[int, int]) -> None:
    n, m = n_of_m
    keep = Pattern(1 - n / m, n_of_m=n_of_m).keep(given_)
    whole = given_.shape[-1] // m * m
    assert (keep[..., :whole].reshape(*given_.shape[:2], -1, m).sum(-1) == n).all()
    assert keep[..., whole:].all()


def test_a_weight_of_a_large_input_outweighs_a_larger_one_of_a_small_input() -> None:
    rows = np.array([[[3.0, 1.0, 2.0]]])
    assert Pattern(0.4).keep(masks.by_magnitude(rows)).tolist() == [[[True, False, True]]]
    large = masks.by_activations(rows, np.array([[0.01, 100.0, 1.0]]))
    assert Pattern(0.4).keep(large).tolist() == [[[False, True, True]]]


def test_where_inputs_have_nothing_in_common_the_surgeon_goes_by_size_and_moves_nothing() -> None:
    rows = normal(2, 6, 40)
    factor = feedback.upper(np.broadcast_to(np.eye(40), (2, 40, 40)), damping=1e-9)
    keep, left = masks.surgeon(rows, factor, Pattern(0.5))
    assert (keep == Pattern(0.5).keep(np.abs(rows))).all()
    assert np.allclose(left, np.where(keep, rows, 0))


@pytest.mark.parametrize(
    "pattern", [Pattern(0.5), Pattern(0.7, "layer"), Pattern(0.5, n_of_m=(2, 4))]
)
def test_where_inputs_are_alike_the_surgeon_loses_far_less(pattern: Pattern) -> None:
    x = alike(96)[0].astype(np.float64)
    gram = (x.T @ x / len(x))[None]
    rows = normal(1, 20, 96)
    factor = feedback.upper(gram, damping=0.01)
    keep, left = masks.surgeon(rows, factor, pattern)
    assert (left[~keep] == 0).all()
    assert abs((~keep).mean() - pattern.share) < 0.02
    plain = np.where(pattern.keep(np.abs(rows)), rows, 0)
    errors = [feedback.error(rows, one, gram).sum() for one in (left, plain)]
    assert errors[0] < 0.65 * errors[1]


def moments(x: np.ndarray, y: np.ndarray) -> Sums:
    sums = Sums(x.shape[0], x.shape[2], y.shape[2])
    sums.add(x, y)
    return sums


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 999), st.integers(2, 12), st.sampled_from([1e-3, 0.1, 1.0]))
def test_masked_least_squares_is_what_each_output_alone_would_give(
    seed: int, inputs: int, ridge: float
) -> None:
    x = normal(2, 60, inputs, seed=seed).astype(np.float32)
    y = normal(2, 60, 4, seed=seed + 1).astype(np.float32)
    found = moments(x, y).centred(shifts=True)
    start = normal(2, inputs, 4, seed=seed + 2)
    keep = normal(2, inputs, 4, seed=seed + 3) > 0
    start = np.where(keep, start, 0)
    solved = masked_fitting.solve(found, start, keep, ridge)
    assert (solved[~keep] == 0).all()
    for group in range(2):
        strength = ridge * found.scale[group]
        for output in range(4):
            at = np.flatnonzero(keep[group, :, output])
            left = found.xx[group][np.ix_(at, at)] + strength * np.eye(len(at))
            right = found.xy[group, at, output] + strength * start[group, at, output]
            exact = np.linalg.solve(left, right) if len(at) else np.zeros(0)
            near = solved[group, at, output]
            assert np.linalg.norm(near - exact) <= 0.02 * max(1.0, np.linalg.norm(exact))


def test_a_singular_gram_matrix_and_dead_inputs_leave_finite_weights() -> None:
    x = alike(24, rows=9)
    x[..., ::3] = 0
    y = normal(1, 9, 5).astype(np.float32)
    found = moments(x, y).centred(shifts=False)
    keep = np.ones((1, 24, 5), bool)
    solved = masked_fitting.solve(found, np.zeros((1, 24, 5)), keep, 1e-3)
    assert np.isfinite(solved).all()
    nothing = moments(np.zeros_like(x), y * 0).centred(shifts=False)
    assert (masked_fitting.solve(nothing, np.ones((1, 24, 5)), keep, 1e-3) == 1).all()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 0.95), st.integers(0, 999))
def test_all_layers_together_lose_the_share_that_is_asked_for(share: float, seed: int) -> None:
    scores_ = shares.Scores()
    layers = {str(at): normal(1, 30, 50 * (at + 1), seed=seed + at) ** 2 for at in range(4)}
    for name, one in layers.items():
        scores_.add(name, one * 10.0 ** (3 * int(name)))  # the scale of a layer says nothing
    found = scores_.shares(share)
    gone = sum(found[name] * one.size for name, one in layers.items())
    assert gone == pytest.approx(share * sum(one.size for one in layers.values()), rel=1e-6)
    assert all(0 <= one <= shares.MOST_SHARE for one in found.values())


def test_a_layer_whose_energy_is_in_few_weights_gives_more() -> None:
    scores_ = shares.Scores()
    few = np.full((1, 10, 100), 1e-6)
    few[..., :5] = 1.0
    scores_.add("few", few)
    scores_.add("even", np.ones((1, 10, 100)))
    found = scores_.shares(0.4)
    assert found["few"] > 0.75
    assert found["even"] < 0.1


def test_a_layer_of_zeros_gives_no_trouble() -> None:
    scores_ = shares.Scores()
    scores_.add("dead", np.zeros((1, 4, 50)))
    scores_.add("alive", normal(1, 4, 50) ** 2)
    found = scores_.shares(0.6)
    assert 200 * (found["dead"] + found["alive"]) == pytest.approx(0.6 * 400)
    assert found["dead"] > found["alive"]
