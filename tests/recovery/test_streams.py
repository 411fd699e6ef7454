"""Samples come in random order from a bounded stock, each once before any comes again."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.calibration.evidence import Evidence
from compression.recovery import ground, streams
from compression.recovery.augmenting import Augmenter
from compression.recovery.streams import Stream

BYTES = 4


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=30),
    bound=st.integers(1, 40),
    most=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_every_sample_comes_once_an_epoch_and_batches_are_of_one_shape(
    widths: list[int], bound: int, most: int, seed: int
) -> None:
    held = [{"x": np.full((1, width), at, np.float32)} for at, width in enumerate(widths)]
    stream = Stream(lambda: held, bound_bytes=BYTES * bound, seed=seed)
    for _ in range(2):
        seen: Counter[float] = Counter()
        while sum(seen.values()) < len(held):
            taken = stream.take(most)
            assert 1 <= len(taken) <= most
            assert len({one["x"].shape for one in taken}) == 1
            assert streams.joined(taken)["x"].shape[0] == len(taken)
            seen.update(float(one["x"][0, 0]) for one in taken)
        assert set(seen.values()) == {1}


def test_no_more_is_held_than_the_bound_and_one_sample() -> None:
    read: list[int] = []

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for at in range(1000):
            read.append(at)
            yield {"x": np.zeros((1, 10), np.float32)}

    Stream(feeds, bound_bytes=400, seed=0).take(1)
    assert len(read) <= 11


@pytest.mark.parametrize("rhythm", [2, 5, 10])
def test_a_file_with_a_rhythm_has_every_kind_in_every_part(rhythm: int) -> None:
    held = Evidence(lambda: ({"x": np.array([at % rhythm])} for at in range(400)))
    divided = ground.divide(held, most=400)
    for part in ("train", "tune", "judge"):
        kinds = {int(sample["x"][0]) for _, sample in divided.feeds(part)}
        assert kinds == set(range(rhythm))


def test_whole_numbers_states_and_strength_zero_are_left_as_they_are() -> None:
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(4, 3, 32, 32)).astype(np.float32),
        "state": rng.normal(size=(4, 8)).astype(np.float32), "rate": np.arange(4),
    }  # fmt: skip
    before = {name: array.copy() for name, array in batch.items()}
    changed = Augmenter(1.0, mixes=True).change(batch, rng)
    assert not np.array_equal(changed["x"], batch["x"])
    assert changed["x"].dtype == np.float32
    assert np.abs(changed["x"] - batch["x"]).std() < 2 * batch["x"].std()
    for name in ("state", "rate"):
        assert np.array_equal(changed[name], before[name])
    assert all(np.array_equal(batch[name], before[name]) for name in batch)
    assert Augmenter(0.0, mixes=True).change(batch, rng) is batch
    tokens = {"ids": np.arange(6).reshape(2, 3)}
    assert Augmenter(1.0, mixes=False).change(tokens, rng) is tokens
