"""What calibration streams: ranges, histograms, means and Gram matrices, within a bound."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import graph, pipeline, runtime, statistics
from compression.calibration import gathering, histograms, taps
from compression.calibration.gathering import What
from compression.calibration.material import Material
from compression.errors import BadInputs, BadModel, OutOfBudget
from compression.job import CompressJob, PassSpec, Recipe
from compression.passes import quantization
from tests.compression import parent
from tests.simulators import models

COUNT = 9


@pytest.fixture
def cnn(tmp_path: Path) -> onnx.ModelProto:
    return graph.regular(models.cnn(tmp_path / "m.onnx", width=8))


def feeds_of(model: onnx.ModelProto, count: int = COUNT) -> list[dict[str, np.ndarray]]:
    spec = runtime.inputs(runtime.session(model))[0]
    shape = tuple(max(1, dim) for dim in spec.shape)
    rng = np.random.default_rng(1)
    return [{spec.name: rng.normal(size=shape).astype(np.float32)} for _ in range(count)]


def collect(model: onnx.ModelProto, feeds: Any, **how: Any) -> dict[str, gathering.Statistics]:
    """What is gathered of every tensor, held at once."""
    return dict(gathering.stream(model, feeds, **how))


def every(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All float tensors of all samples, held at once: what streaming must agree with."""
    names = [name for name in taps.float_tensors(model) if name not in feeds[0]]
    session = runtime.session(taps.outputs(model, names))
    rows = [{**one, **runtime.run(session, one)} for one in feeds]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def test_ranges_are_those_of_the_tensors(cnn: onnx.ModelProto) -> None:
    feeds = feeds_of(cnn)
    found = statistics.ranges(cnn, iter(feeds), count=COUNT)
    held = every(cnn, feeds)
    assert set(found) == set(held)
    for name, values in held.items():
        rows = values.reshape(COUNT, -1)
        assert found[name].low == pytest.approx(float(rows.min()), rel=1e-4, abs=1e-6)
        assert found[name].mean_high == pytest.approx(float(rows.max(1).mean()), rel=1e-4, abs=1e-6)


def test_a_model_of_doubles_has_no_ranges() -> None:
    weight = numpy_helper.from_array(np.ones((4, 2)), "w")
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [1, size])
        for name, size in (("x", 4), ("y", 2))
    )
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = helper.make_graph(nodes, "doubles", [x], [y], [weight])
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=8)
    feeds = [{"x": np.ones((1, 4))}, {"x": np.zeros((1, 4))}]
    assert statistics.ranges(model, feeds, count=2) == {}
    with pytest.raises(BadInputs, match="no samples"):
        statistics.ranges(model, [], count=0)


def test_no_activation_is_kept_until_the_end_of_a_run(tmp_path: Path) -> None:
    # 60 tensors of 4 MiB each: 240 MiB if onnxruntime held all, which the order of taps decides.
    names = [f"t{index}" for index in range(60)]
    nodes = [
        helper.make_node("Sin", [before], [after])
        for before, after in zip(["x", *names], [*names, "y"], strict=True)
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 2**20)}, {"y": ("N", 2**20)})
    code = """
import sys, numpy, onnx
from compression import statistics
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l[:5] == "VmHWM") / 1024
model, row = onnx.load(sys.argv[1]), {"x": numpy.ones((1, 2**20), "float32")}
before = peak()
found = statistics.ranges(model, [row] * 2, count=2)
print(len(found), peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    tensors, added_mib = done.stdout.split()
    assert int(tensors) == 62
    assert float(added_mib) < 80


def test_what_statistics_hold_does_not_grow_with_the_samples() -> None:
    names = [f"t{index}" for index in range(50)]
    seen = statistics.Accumulator(names)
    before = seen.state_bytes
    for index in range(2000):
        shapes = dict.fromkeys(names, (1, index % 7, 3))
        seen.add(np.full(50, -float(index)), np.full(50, float(index)), shapes)
    assert seen.state_bytes == before == 4 * 50 * 8
    assert {len(value) for value in vars(seen).values() if hasattr(value, "__len__")} == {50}
    assert seen.ranges()["t7"] == statistics.Range(-1999, 1999, -999.5, 999.5)
    assert seen.shapes()["t7"] == (1, 6, 3)


def test_no_samples_are_refused(cnn: onnx.ModelProto) -> None:
    with pytest.raises(BadInputs, match="there are no samples"):
        statistics.ranges(cnn, [], count=0)
    wanted = {name: What(histogram=True) for name in taps.float_tensors(cnn)}
    with pytest.raises(BadInputs, match="there are no samples"):
        collect(cnn, list, count=0, wanted=wanted, work_memory_mib=1)


def test_a_tensor_that_is_not_there_is_refused(cnn: onnx.ModelProto) -> None:
    with pytest.raises(BadModel):
        collect(
            cnn, lambda: feeds_of(cnn), count=COUNT, wanted={"nowhere": What()}, work_memory_mib=1
        )


@pytest.mark.parametrize("mib", [64.0, 0.2])
def test_streamed_equals_what_all_at_once_gives(cnn: onnx.ModelProto, mib: float) -> None:
    feeds = feeds_of(cnn)
    held = every(cnn, feeds)
    wanted = {
        name: What(histogram=True, channel_axis=1, gram=True, positions=10**6) for name in held
    }
    passes = 0

    def again() -> Iterator[dict[str, np.ndarray]]:
        nonlocal passes
        passes += 1
        yield from feeds

    found = collect(cnn, again, count=COUNT, wanted=wanted, work_memory_mib=mib)
    assert set(found) == set(held)
    assert (passes > 2) == (mib < 1)  # the extremes, then one pass or several
    for name, values in held.items():
        one = found[name]
        rows = np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.float64)
        assert one.samples == COUNT
        assert one.channels is not None
        assert one.histogram is not None
        assert (one.channels.positions, one.channels.picked) == (len(rows), len(rows))
        assert np.allclose(one.channels.mean, rows.mean(0), rtol=1e-4, atol=1e-5)
        assert one.channels.gram is not None
        assert one.channels.gram.dtype == np.float64
        assert np.allclose(one.channels.gram, rows.T @ rows, rtol=1e-4, atol=1e-4)
        assert one.histogram.counts.sum() == values.size
        assert one.histogram.zeros == np.count_nonzero(values == 0)


def test_picked_positions_are_the_same_every_time_and_estimate_the_whole(
    cnn: onnx.ModelProto,
) -> None:
    feeds = feeds_of(cnn, 40)
    name = next(node.output[0] for node in cnn.graph.node if node.op_type == "Conv")

    def gram(positions: int, seed: int = 0) -> np.ndarray:
        what = What(channel_axis=1, gram=True, positions=positions)
        found = collect(
            cnn, lambda: feeds, count=40, wanted={name: what}, work_memory_mib=8, seed=seed
        )[name].channels
        assert found is not None
        assert found.gram is not None
        assert found.picked == 40 * min(positions, found.positions // 40)
        return found.gram / found.picked

    assert np.array_equal(gram(16), gram(16))
    assert not np.array_equal(gram(16), gram(16, seed=1))
    whole = gram(10**6)
    assert np.abs(gram(16) - whole).max() < 0.15 * np.abs(whole).max()


def test_batches_hold_what_was_allowed_and_lose_nothing() -> None:
    sizes = {"a": 5, "b": 5, "c": 40, "d": 1, "e": 1, "f": 9}
    parts = taps.batches(sizes, bound=20)
    assert [name for part in parts for name in part] == list(sizes)
    for part in parts:
        held = [sizes[name] for name in part]
        assert len(part) == 1 or sum(held) + max(held) <= 20
    assert ["c"] in parts


def test_a_gram_matrix_over_the_bound_is_refused_with_its_size(cnn: onnx.ModelProto) -> None:
    name = next(node.output[0] for node in cnn.graph.node if node.op_type == "Conv")
    with pytest.raises(OutOfBudget, match=rf"cannot gather the statistics of '{name}'.*MiB"):
        collect(
            cnn, lambda: feeds_of(cnn), count=COUNT, work_memory_mib=0.0001,
            wanted={name: What(channel_axis=1, gram=True)},
        )  # fmt: skip


def test_a_tensor_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Log", ["x"], ["l"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Add", ["l", "r"], ["y"]),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 3)}, {"y": ("N", 3)})
    row = {"x": np.array([[-1.0, 0.0, 2.0]], np.float32)}
    wanted = {name: What(histogram=True) for name in "xlry"}
    found = collect(onnx.load(path), lambda: [row], count=1, wanted=wanted, work_memory_mib=1)
    assert set(found) == {"x", "r"}


def test_constant_samples_have_a_range_without_width(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = models.save(tmp_path / "m.onnx", nodes, {}, {"x": ("N", 4)}, {"y": ("N", 4)})
    row = {"x": np.full((1, 4), 3.0, np.float32)}
    found = collect(
        onnx.load(path), lambda: [row] * 5, count=5, wanted={"y": What(histogram=True)},
        work_memory_mib=1,
    )["y"]  # fmt: skip
    assert found.histogram is not None
    assert found.histogram.counts.sum() == 20
    assert histograms.least_error_range(found.histogram) == (0.0, 3.0)


def test_ragged_samples_and_subgraphs_are_gathered_from(tmp_path: Path) -> None:
    inner = [helper.make_node("Mul", ["h", "h"], ["then"])]
    other = [helper.make_node("Neg", ["h"], ["else"])]
    out = [helper.make_tensor_value_info(name, 1, None) for name in ("then", "else")]
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "nought"], ["c"]),
        helper.make_node(
            "If", ["c"], ["i"],
            then_branch=helper.make_graph(inner, "t", [], out[:1]),
            else_branch=helper.make_graph(other, "e", [], out[1:]),
        ),
        helper.make_node("Exp", ["i"], ["y"]),
    ]  # fmt: skip
    weights, shape = {"nought": np.array(0.0, np.float32)}, {"x": ("N", 3, "W")}
    path = models.save(tmp_path / "m.onnx", nodes, weights, shape, {"y": ("N", 3, "W")})
    rows = [{"x": np.random.default_rng(w).normal(size=(1, 3, w)).astype("f4")} for w in (5, 9, 2)]
    wanted = {"i": What(histogram=True, channel_axis=1, gram=True), "h": What(channel_axis=1)}
    found = collect(onnx.load(path), lambda: rows, count=3, wanted=wanted, work_memory_mib=1)
    assert found["i"].histogram is not None
    assert found["i"].histogram.counts.sum() == 3 * 16
    assert found["i"].channels is not None
    assert found["i"].channels.positions == 16
    assert found["h"].channels is not None


values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300)


@given(values=values, pieces=st.integers(1, 5))
def test_a_histogram_does_not_depend_on_how_values_come(values: list[float], pieces: int) -> None:
    array = np.array(values, np.float32)
    low, high = float(array.min()), float(array.max())
    whole, parts = histograms.Counter(low, high), histograms.Counter(low, high)
    whole.add(array)
    for piece in np.array_split(array, pieces):
        parts.add(piece)
    a, b = whole.histogram(), parts.histogram()
    assert np.array_equal(a.counts, b.counts)
    assert a.counts.sum() == array.size
    assert a.zeros == b.zeros == np.count_nonzero(array == 0)


def error(values: np.ndarray, low: float, high: float) -> float:
    """Mean square of what 255 steps over [low, high] make of values, zero being a step."""
    if high <= low:
        return float(np.square(values).mean())
    step = (high - low) / 255
    zero = round(-low / step)
    q = np.clip(np.rint(values / step) + zero, 0, 255)
    return float(np.square((q - zero) * step - values).mean())


@given(values=values)
def test_the_least_error_range_lies_within_and_holds_zero(values: list[float]) -> None:
    array = np.array(values, np.float32)
    counter = histograms.Counter(float(array.min()), float(array.max()))
    counter.add(array)
    low, high = histograms.least_error_range(counter.histogram())
    assert min(float(array.min()), 0.0) <= low <= 0.0 <= high <= max(float(array.max()), 0.0)


@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outlier", "uniform"])
def test_the_least_error_range_rounds_no_worse_than_any_other(kind: str) -> None:
    rng = np.random.default_rng(3)
    drawn = {
        "normal": rng.normal(size=50_000),
        "laplace": rng.laplace(size=50_000),
        "relu": np.maximum(rng.normal(size=50_000), 0),
        "outlier": np.append(rng.normal(size=50_000), [40.0] * 5),
        "uniform": rng.uniform(-1, 1, 50_000),
    }[kind].astype(np.float32)
    counter = histograms.Counter(float(drawn.min()), float(drawn.max()))
    counter.add(drawn)
    best = error(drawn, *histograms.least_error_range(counter.histogram()))
    tried = [
        error(drawn, float(drawn.min()) * low, float(drawn.max()) * high)
        for low in np.linspace(0.05, 1, 12)
        for high in np.linspace(0.05, 1, 12)
    ]
    assert best <= 1.03 * min(tried)
    if kind == "laplace":  # long thin tails are cheaper clipped than given steps
        assert best < 0.95 * error(drawn, float(drawn.min()), float(drawn.max()))


def test_a_recipe_can_ask_for_least_error_and_keeps_to_the_bound(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx", width=8)
    rows = models.sample_inputs(path, 12)
    rows["image"][3, 0, 0, 0] = 400.0  # one wild pixel
    np.savez(tmp_path / "i.npz", **rows)
    job = CompressJob(
        model_name="m", model_path=str(path), calibration_path=str(tmp_path / "i.npz"),
        device_class=parent.HASWELL, out_dir=str(tmp_path), work_memory_mib=0.5, seed=1,
    )  # fmt: skip
    material = Material.open(job, tmp_path)
    model = graph.regular(path)
    settings = quantization.Settings(least_error=True)
    plain = material.calibrate(model)
    names = quantization.rounded(model, settings, ranges=plain)
    assert names
    best = material.calibrate(model, least_error=names)
    assert best.keys() == plain.keys()
    for name, seen in plain.items():
        if name in names:
            assert min(seen.low, 0) <= best[name].low <= best[name].high <= max(seen.high, 0)
        else:
            assert best[name] == seen
    spec = PassSpec(name="quantization", parameters={"least_error": True})
    variant = pipeline.run(Recipe(label="l", passes=(spec,)), model, calibrate=material.calibrate)
    material.close()
    assert runtime.run(runtime.session(variant), {"image": rows["image"][:1]})["logits"].size


def test_many_values_of_one_sample_are_thinned_evenly() -> None:
    counter = histograms.Counter(-5, 5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        counter.add(rng.normal(size=(1, 8, 300, 200)).clip(-5, 5))
    found = counter.histogram()
    assert found.counts.sum() <= 3 * histograms.MOST_VALUES
    assert abs(float(found.centres @ found.counts) / found.counts.sum()) < 0.02
