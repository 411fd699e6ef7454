"""The comparison with public tools judges as the project does; its intervals hold the truth."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compression import agreement, runtime, samples
from compression.job import OutputSpec
from tests.benchmarks.peers import frontier, grid, quantize_one, race, scores, weights
from tests.benchmarks.peers.frontier import Comparison, Point
from tests.benchmarks.peers.scores import Tally
from tests.fixtures.trained import collection
from tests.simulators import models

ORIGINAL = Point("original", 1000, (1.0, 1.0, 1.0), 1.0)
KINDS: dict[str, tuple[OutputSpec, tuple[int, ...]]] = {
    "logits": (OutputSpec(name="y", kind="logits"), (1, 5)),
    "steps": (OutputSpec(name="y", kind="steps", blank=0), (1, 9, 4)),
    "score": (OutputSpec(name="y", kind="score", threshold=0.1), (1, 3)),
    "mask": (OutputSpec(name="y", kind="mask", threshold=0.0), (1, 1, 6, 6)),
    "embedding": (OutputSpec(name="y", kind="embedding"), (1, 8)),
    "detections": (
        OutputSpec(name="y", kind="detections", columns=("box", "score"), iou_threshold=0.1),
        (1, 7, 5),
    ),
    "tensor": (OutputSpec(name="y", kind="tensor"), (1, 6)),
}


def pairs(shape: tuple[int, ...], count: int = 40) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        one = rng.normal(0, 1, shape).astype(np.float32)
        found.append((one, one + rng.normal(0, 0.4, shape).astype(np.float32)))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_samples_add_up_to_the_agreement_that_compression_reports(kind: str) -> None:
    spec, shape = KINDS[kind]
    tally, judge = Tally(), agreement.Judge([spec])
    for one, other in pairs(shape):
        tally.add([spec], {"y": one}, {"y": other}, None)
        judge.add({"y": one}, {"y": other})
    right, of = tally.shares().sum(axis=0)
    value = judge.agreement("evaluation").value
    assert 0.05 < value < 0.999
    assert right / of == pytest.approx(value)
    assert tally.sqnr_db() == pytest.approx(judge.sqnr_db()["y"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "detections"])
def test_an_answer_that_is_not_a_number_agrees_with_nothing(kind: str) -> None:
    spec, shape = KINDS[kind]
    tally = Tally()
    for one, _ in pairs(shape):
        tally.add([spec], {"y": one}, {"y": np.full_like(one, np.nan)}, None)
    right, of = tally.shares().sum(axis=0)
    assert (right, of > 0) == (0, True)


def test_a_tally_is_read_as_it_was_kept(tmp_path: Path) -> None:
    for kind, label in (("logits", np.array(2)), ("score", np.array([0, 1, 1])), ("tensor", None)):
        spec, shape = KINDS[kind]
        tally = Tally()
        for one, other in pairs(shape):
            tally.add([spec], {"y": one}, {"y": other}, label)
        tally.save(tmp_path / "tally.npz")
        again = Tally.load(tmp_path / "tally.npz")
        np.testing.assert_array_equal(again.shares(), tally.shares())
        assert again.metric_values() == tally.metric_values()
        assert again.sqnr_db() == tally.sqnr_db()
        assert bool(tally.metric_values()) == (label is not None)


def yes_or_no(rng: np.random.Generator, share: float, count: int) -> scores.Shares:
    return np.stack([(rng.random(count) < share).astype(float), np.ones(count)], axis=1)


def test_equal_variants_do_not_differ_at_all() -> None:
    one = yes_or_no(np.random.default_rng(0), 0.7, 200)
    assert scores.difference(one, one) == (0.0, 0.0, 0.0)


def test_pairs_tell_more_than_two_groups() -> None:
    rng = np.random.default_rng(1)
    one = yes_or_no(rng, 0.7, 500)
    other = one.copy()
    other[:5, 0] = 1 - other[:5, 0]
    _, low, high = scores.difference(one, other)
    _, apart_low, apart_high = scores.difference(one, other[rng.permutation(500)])
    assert high - low < (apart_high - apart_low) / 4


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        easy = rng.random(150) < 0.6
        ours = easy | (rng.random(150) < 0.5)
        theirs = easy | (rng.random(150) < 0.25)
        ones = np.ones(150)
        _, low, high = scores.difference(
            np.stack([ours, ones], axis=1).astype(float),
            np.stack([theirs, ones], axis=1).astype(float),
            seed=seed,
        )
        held += low <= 0.4 * 0.25 <= high
    assert held >= 51


def test_samples_of_one_source_count_as_one_draw() -> None:
    rng = np.random.default_rng(2)
    once, other = yes_or_no(rng, 0.8, 40), yes_or_no(rng, 0.6, 40)
    copied, others = np.repeat(once, 10, axis=0), np.repeat(other, 10, axis=0)
    sources = np.repeat(np.arange(40), 10).tolist()
    value, low, high = scores.difference(copied, others, sources=sources)
    assert (value, low, high) == pytest.approx(scores.difference(once, other))
    _, narrow_low, narrow_high = scores.difference(copied, others)
    assert narrow_high - narrow_low < (high - low) / 2


points = st.builds(
    lambda *made: Point(str(made), made[0], (made[1],) * 3, made[2], made[3]),
    st.integers(100, 2000),
    st.floats(0.1, 3.0),
    st.floats(0.0, 1.0),
    st.floats(-5.0, 60.0),
)


@given(st.lists(points, max_size=12))
def test_nothing_on_the_frontier_beats_another_and_all_else_is_matched(found: list[Point]) -> None:
    kept = frontier.frontier(found, ORIGINAL)
    for one in found:
        matching = [
            other
            for other in [ORIGINAL, *kept]
            if other.size <= frontier.SIZE_EQUAL * one.size
            and other.cpu[0] <= frontier.CPU_EQUAL * one.cpu[0]
            and other.agreement >= one.agreement
        ]
        if any(one is other for other in kept):
            assert not [other for other in matching if other.agreement > one.agreement]
        else:
            assert matching


def test_what_may_be_as_slow_as_the_original_and_is_as_large_is_no_peer() -> None:
    even = Point("untouched", 999, (0.985, 0.93, 1.01), 1.0)
    faster = Point("faster", 999, (0.95, 0.93, 0.97), 1.0)
    assert frontier.frontier([even], ORIGINAL) == []
    assert frontier.frontier([even, faster], ORIGINAL) == [faster]


@given(st.lists(points, max_size=12), st.floats(0.0, 0.1))
def test_screening_never_loses_a_point_of_the_frontier(found: list[Point], slack: float) -> None:
    left = frontier.screened(found, ORIGINAL, slack=slack)
    labels = {one.label for one in left}
    strict = [
        one
        for one in found
        if not any(
            other.label != one.label
            and other.size <= frontier.SIZE_EQUAL * one.size
            and other.cpu[0] <= one.cpu[0]
            and other.agreement >= one.agreement
            for other in [ORIGINAL, *found]
        )
    ]
    assert {one.label for one in strict} <= labels


@pytest.mark.parametrize(
    ("size", "cpu", "agreed", "missed"),
    [
        (1.02, (1.05, 1.02, 1.08), (-0.01, -0.03, 0.001), set()),
        (1.03, (1.00, 0.99, 1.01), (0.0, 0.0, 0.0), {"size"}),
        (1.00, (1.10, 1.05, 1.15), (0.0, 0.0, 0.0), {"cpu"}),
        (0.50, (0.50, 0.49, 0.51), (-0.02, -0.03, -0.01), {"agreement"}),
    ],
)
def test_only_what_the_whole_interval_says_is_a_miss(
    size: float, cpu: frontier.Interval, agreed: frontier.Interval, missed: set[str]
) -> None:
    assert set(Comparison("ours", size, cpu, agreed).misses()) == missed


def test_the_nearest_rung_is_the_one_with_the_fewest_misses() -> None:
    even = (1.0, 1.0, 1.0)
    rungs = {
        "large": Comparison("large", 3.0, even, (0.0, 0.0, 0.0)),
        "poor": Comparison("poor", 1.0, even, (-0.2, -0.3, -0.1)),
        "both": Comparison("both", 1.1, even, (-0.1, -0.2, -0.05)),
    }
    found = frontier.judge("peer", list(rungs), lambda rung, _: rungs[rung])
    assert (found.met, found.nearest) == (False, rungs["poor"])
    assert frontier.judge("peer", [], lambda rung, _: rungs[rung]).nearest is None


def test_a_race_is_told_in_ratios_of_the_same_rounds() -> None:
    drift = np.linspace(1.0, 4.0, 50)
    found = race.Race({"half": 0.5 * drift, "double": 2.0 * drift}, drift)
    assert found.ratio("half") == (0.5, 0.5, 0.5)
    assert found.ratio("double", "half") == (4.0, 4.0, 4.0)


def test_a_race_loads_every_model_for_each_bout(tmp_path: Path) -> None:
    path, feeds = models.mlp(tmp_path / "a.onnx"), tmp_path / "feeds.npz"
    np.savez(feeds, **models.sample_inputs(path))
    session, loaded = runtime.session, list[Path]()

    def counted(path: Path) -> Any:
        loaded.append(path)
        return session(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "session", counted)
        with samples.open_samples(feeds, runtime.inputs(session(path))) as inputs:
            found = race.run(path, {"same": path}, inputs, rounds=9)
    assert len(loaded) == 2 * race.BOUTS
    assert found.variants["same"].shape == found.original.shape == (9,)


def test_float_weights_are_found_in_constants_and_branches(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    constant = helper.make_node("Constant", [], ["c"], value=weight)
    branch = helper.make_graph([constant], "branch", [], [_value("c", [4, 4])], [])
    choice = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    scale = numpy_helper.from_array(np.ones(8, np.float32), "s")
    whole = numpy_helper.from_array(np.ones(100, np.int8), "q")
    yes = helper.make_tensor_value_info("yes", TensorProto.BOOL, [])
    graph = helper.make_graph([choice], "g", [yes], [_value("y", [4, 4])], [scale, whole])
    model = helper.make_model(graph)
    assert weights.float_bytes(model) == 2 * 64 + 32
    onnx.save(model, tmp_path / "both.onnx")
    branch.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.ones(1, np.int8), "w"))
    less = helper.make_graph([choice], "g", [yes], [_value("y", [4, 4])], [scale, whole])
    less.node[0].attribute[0].g.CopyFrom(branch)
    onnx.save(helper.make_model(less), tmp_path / "one.onnx")
    share = weights.share_quantized(tmp_path / "both.onnx", tmp_path / "one.onnx")
    assert share == pytest.approx(64 / 160)


def _value(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def test_every_setting_of_the_grid_is_another_one_for_a_tool_that_exists() -> None:
    found = grid.settings()
    assert len({json.dumps(one, sort_keys=True) for one in found.values()}) == len(found)
    assert {one["tool"] for one in found.values()} | {"prepare"} == set(quantize_one.TOOLS)


def run_one(setting: grid.Setting, model: Path, calibration: Path, out: Path) -> dict[str, Any]:
    command = [sys.executable, quantize_one.__file__, json.dumps(setting)]
    done = subprocess.run(
        [*command, str(model), str(calibration), str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_a_setting_runs_in_a_process_of_its_own_and_says_what_it_took(tmp_path: Path) -> None:
    trained = collection.load("keywords")
    trained.write_inputs(tmp_path / "inputs.npz", 4, seed=1)
    setting = {"tool": "static", "per_channel": True, "ranges_path": str(tmp_path / "ranges")}
    out = tmp_path / "out.onnx"
    answer = run_one(setting, trained.onnx, tmp_path / "inputs.npz", out)
    assert answer["failed"] == ""
    assert answer["user_s"] > 0
    assert answer["peak_mib"] > 20
    assert weights.share_quantized(trained.onnx, out) > 0.1
    seconds = json.loads((tmp_path / "ranges.seconds").read_text())
    again = run_one(setting | {"per_channel": False}, trained.onnx, tmp_path / "inputs.npz", out)
    assert again["user_s"] > seconds


def test_a_setting_that_fails_says_how(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    paths = [tmp_path / name for name in ("model.onnx", "inputs.npz", "out.onnx")]
    answer = run_one({"tool": "dynamic"}, *paths)
    assert answer["failed"]
    assert not paths[2].exists()
