"""The highest values as text: order, ties, batches, and what is no number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.errors import BadInput
from agent.serving.classification import highest


def test_the_example_of_the_specification() -> None:
    assert highest("y", np.array([1, 5, 10, 4], "i4"), 2).tolist() == ["10:2", "5:1"]


def test_of_equals_the_first_comes_first() -> None:
    array = np.array([[2, 7, 7], [0, 0, 0]], "u1")
    assert highest("y", array, 2).tolist() == [["7:1", "7:2"], ["0:0", "0:1"]]


def test_what_is_no_number_comes_last() -> None:
    array = np.array([np.nan, 1.5, np.inf, -np.inf], "f4")
    order = [text.split(":")[1] for text in highest("y", array, 9)]
    assert order[:2] == ["2", "1"]
    assert len(order) == 4


@pytest.mark.parametrize("array", [np.array(["a"], object), np.array([True])])
def test_texts_and_truths_have_no_highest(array: np.ndarray) -> None:
    with pytest.raises(BadInput, match="cannot classify output 'y'"):
        highest("y", array, 1)


SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)


@given(arrays.arrays(np.dtype("f4"), SHAPES), st.integers(1, 9))
def test_each_row_has_its_highest_in_order(array: np.ndarray, count: int) -> None:
    found = highest("y", array, count)
    rows = [row.ravel() for row in array] if array.ndim > 1 else [array.ravel()]
    assert len(found) == (len(rows) if array.ndim > 1 else min(count, len(rows[0])))
    for row, texts in zip(rows, found if array.ndim > 1 else [found], strict=True):
        indexes = [int(text.split(":")[1]) for text in texts]
        values = np.where(np.isnan(row), -np.inf, row)[indexes].tolist()
        assert len(set(indexes)) == len(indexes)
        assert values == sorted(np.where(np.isnan(row), -np.inf, row), reverse=True)[:count]
