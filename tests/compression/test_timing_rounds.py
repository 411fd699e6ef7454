"""Two real models timed side by side: order, pauses, shapes, and a clock that changes."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from compression import runtime, samples
from compression.errors import BadModel
from compression.ruler import interleaving, pace
from compression.ruler.timing import Round
from tests.compression.test_timing_conditions import FIRMWARE, FREQUENCY
from tests.simulators import models

FOREVER = 1e9


class Watched:
    """A real session that tells when it is run."""

    def __init__(self, session, heard) -> None:
        self._session = session
        self._heard = heard

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, names, feeds):
        self._heard(next(iter(feeds.values())))
        return self._session.run(names, feeds)


@pytest.fixture
def inputs(tmp_path: Path) -> Iterator[samples.Samples]:
    """Eight images: too slow to be repeated within a segment."""
    path = models.cnn(tmp_path / "m.onnx", width=96)
    np.savez(tmp_path / "i.npz", **models.sample_inputs(path, 8))
    with samples.open_samples(tmp_path / "i.npz", runtime.inputs(runtime.session(path))) as found:
        yield found


def plan(rounds: int, *, seconds: float = FOREVER) -> interleaving.Plan:
    now = time.monotonic()
    return interleaving.Plan(rounds, deadline=now + seconds, latest=now + FOREVER)


def bench(tmp_path: Path, inputs: samples.Samples, heard, **fields) -> interleaving.Bench:
    path = tmp_path / "m.onnx"
    pair = [Watched(runtime.session(path), lambda x, who=who: heard(who, x)) for who in "oc"]
    return interleaving.Bench(*pair, inputs, tuple(range(8)), tmp_path, **fields)


def test_each_round_is_one_sample_in_the_order_that_starts_all_alike(
    tmp_path: Path, inputs: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving, "LEAST_SEGMENT_S", 0.0)
    monkeypatch.setattr(interleaving, "HEAT_S", 0.0)
    monkeypatch.setattr(interleaving, "ROUNDS_PER_BURST", 1)
    monkeypatch.setattr(interleaving, "PATIENCE", 1)
    runs: list[tuple[str, bytes]] = []
    bench(tmp_path, inputs, lambda who, x: runs.append((who, x.tobytes()))).run(plan(16))
    rounds = [runs[at : at + 5] for at in range(len(runs) % 5, len(runs), 5)]
    timed = rounds[-16:]
    # One to wake the CPU, one so that all begin alike, and the three that are timed.
    assert ["".join(who for who, _ in one) for one in timed] == ["ccoco"] * 16
    seen = [{x for _, x in one} for one in timed]
    assert all(len(one) == 1 for one in seen)
    counts = [sum(one == other for other in seen) for one in seen]
    assert counts == [2] * 16  # eight samples, each twice


def test_the_deadline_ends_it_but_at_least_three_rounds_are_run(
    tmp_path: Path, inputs: samples.Samples
) -> None:
    figures, _ = bench(tmp_path, inputs, lambda *_: None).run(plan(100, seconds=0))
    assert 3 <= figures["rounds"] < 3 + interleaving.ROUNDS_PER_BURST


def test_a_model_too_slow_for_three_rounds_is_timed_in_one_burst(
    tmp_path: Path, inputs: samples.Samples
) -> None:
    long_ago = interleaving.Plan(100, deadline=0.0, latest=0.0)
    figures, _ = bench(tmp_path, inputs, lambda *_: None).run(long_ago)
    assert figures["rounds"] <= interleaving.ROUNDS_PER_BURST  # one burst


def test_many_more_rounds_than_asked_for_are_never_run(
    tmp_path: Path, inputs: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving.Timed, "tight", lambda _: False)
    figures, _ = bench(tmp_path, inputs, lambda *_: None).run(plan(5))
    assert 20 <= figures["rounds"] < 20 + interleaving.ROUNDS_PER_BURST


def test_a_tight_interval_ends_it_sooner(
    tmp_path: Path, inputs: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving.Timed, "tight", lambda _: True)
    figures, _ = bench(tmp_path, inputs, lambda *_: None).run(plan(1000))
    assert (
        20 <= figures["rounds"] < 20 + interleaving.ROUNDS_PER_BURST
    )  # what a 95th percentile needs


def test_rounds_in_which_the_clock_fell_do_not_count(
    tmp_path: Path, inputs: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving.Timed, "tight", lambda _: True)
    frequency = tmp_path / FREQUENCY
    frequency.parent.mkdir(parents=True)
    frequency.write_text("1800000")
    rounds = itertools.count(1)
    one_round = interleaving.Bench._round

    def heated(self: interleaving.Bench, feeds: samples.Arrays, repeats: int) -> Round:
        if next(rounds) == 10:  # the board grows hot within the tenth round, and stays so
            frequency.write_text("1000000")
        return one_round(self, feeds, repeats)

    monkeypatch.setattr(interleaving.Bench, "_round", heated)
    figures, method = bench(tmp_path, inputs, lambda *_: None).run(plan(30))
    assert "1 more thrown away: the clock changed in them" in method["latency"]
    assert figures["rounds"] >= 20
    assert method["clock"] == "1000 to 1800 MHz"


def test_where_the_clock_never_rests_it_still_ends_and_says_so(
    tmp_path: Path, inputs: samples.Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interleaving.Timed, "tight", lambda _: False)
    bits = tmp_path / FIRMWARE
    bits.parent.mkdir(parents=True)
    bits.write_text("0")
    changes = itertools.cycle(["4", "0", "1"])
    figures, method = bench(tmp_path, inputs, lambda *_: bits.write_text(next(changes))).run(
        plan(5)
    )
    assert 20 <= figures["rounds"] < 20 + interleaving.ROUNDS_PER_BURST
    assert "it is never steady" in method["latency"]
    assert "throttled" in method["clock"]


def test_ragged_inputs_are_timed_in_the_mix_that_they_come_in(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w": np.ones((64, 64), "f4")}
    shape = {"x": ("N", "T", 64)}
    path = models.save(tmp_path / "m.onnx", nodes, weights, shape, {"y": ("N", "T", 64)})
    samples.write(
        tmp_path / "i.npz", [{"x": np.ones((1, length, 64), "f4")} for length in (2, 3000, 40)]
    )
    session = runtime.session(path)
    with samples.open_samples(tmp_path / "i.npz", runtime.inputs(session)) as found:
        one = interleaving.Bench(session, session, found, (0, 1, 2), tmp_path)
        _, method = one.run(plan(9, seconds=5))
    assert method["shapes"].startswith("3 input shapes")
    # 1,500 times the work: the long one is not repeated as often as the short ones.
    repeats = one._repeats.values()
    assert max(repeats) > 10 * min(repeats)


def test_a_model_that_fails_on_a_later_sample_is_a_bad_model(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    path = models.save(
        tmp_path / "m.onnx", nodes, {"s": np.array([1, 4])}, {"x": ("N", "T")}, {"y": (1, 4)}
    )
    samples.write(tmp_path / "i.npz", [{"x": np.ones((1, n), "f4")} for n in (4, 5)])
    session = runtime.session(path)
    with samples.open_samples(tmp_path / "i.npz", runtime.inputs(session)) as found:
        one = interleaving.Bench(session, session, found, (0, 1), tmp_path)
        with pytest.raises(BadModel, match=r"cannot run the model on inputs of .*\[1, 5\]"):
            one.run(plan(5))


def test_at_most_half_of_the_time_is_worked() -> None:
    now = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    resting = pace.Pace(lambda: now[0], sleep)
    worked = 0.0
    for step in np.random.default_rng(0).exponential(0.01, 500):
        now[0] += step
        worked += step
        resting.rest()
    assert len(slept) > 100
    assert worked <= pace.SHARE * now[0] + pace.BURST_S + resting.longest_burst_s
    assert resting.describe().startswith("at most 50% of the time, in bursts of up to ")
