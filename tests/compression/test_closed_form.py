"""Passes that put right what rounding did: biases, channels between layers, weights again."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import agreement, graph, pipeline, runtime, statistics
from compression.calibration import moments
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import equalization, feedback
from tests.simulators import models

Rows = list[dict[str, np.ndarray]]
STATIC = PassSpec(name="quantization", parameters={"weights": "s8-7bit"})


def made(model: onnx.ModelProto, rows: Rows, *passes: PassSpec) -> onnx.ModelProto:
    def calibrate(one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> Any:
        return statistics.ranges(one, rows, count=len(rows))

    recipe = Recipe(label="test", passes=passes)
    return pipeline.run(recipe, model, calibrate=calibrate, evidence=Evidence(lambda: rows))


def a_pass(name: str, **parameters: Any) -> PassSpec:
    return PassSpec(name=name, parameters=parameters)


def sqnr(model: onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    original, candidate = runtime.session(model), runtime.session(changed)
    signal = error = 0.0
    for row in rows:
        a, b = runtime.run(original, row), runtime.run(candidate, row)
        one, two = agreement.powers(next(iter(a.values())), next(iter(b.values())))
        signal, error = signal + one, error + two
    return agreement.sqnr_db(signal, error)


def images(count: int, channels: int = 3, seed: int = 0, size: int = 12) -> Rows:
    """Smooth images, whose neighbours and channels say nearly the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        noise = rng.normal(size=(1, channels, size, size))
        smooth = np.cumsum(np.cumsum(noise, 2), 3) / size + rng.uniform(-2, 2)
        rows.append({"x": np.clip(smooth, -2, 2).astype(np.float32)})
    return rows


def convs(
    tmp_path: Path,
    *,
    groups: int = 1,
    bias: bool = True,
    between: str | None = "Relu",
    uneven: float = 0.0,
) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    weights = {
        "w1": rng.normal(size=(16, 3, 3, 3)) * np.exp2(rng.uniform(-uneven, uneven, (16, 1, 1, 1))),
        "b1": rng.normal(size=16),
        "w2": rng.normal(size=(16, 16 // groups, 3, 3)),
        "b2": rng.normal(size=16),
        "w3": rng.normal(size=(4, 16, 1, 1)),
        "slope": rng.uniform(0.1, 0.5, (16, 1, 1)),
    }
    after = [between, "slope"] if between == "PRelu" else [between]
    ends = ["w1", "b1"], ["w2", "b2"] if bias else ["w2"]
    nodes = [
        helper.make_node("Conv", ["x", *ends[0]], ["h"], pads=[1, 1, 1, 1]),
        *([helper.make_node(after[0], ["h", *after[1:]], ["r"])] if between else []),
        helper.make_node("Conv", ["r" if between else "h", *ends[1]], ["g"], group=groups),
        helper.make_node("Relu", ["g"], ["s"]),
        helper.make_node("Conv", ["s", "w3"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    used = {name for node in nodes for name in node.input}
    held = {name: array.astype(np.float32) for name, array in weights.items() if name in used}
    shapes = {"x": ("N", 3, "H", "W")}, {"y": ("N", 4, None, None)}
    return graph.regular(models.save(tmp_path / "m.onnx", nodes, held, *shapes))


def mean_shift(model: onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    """How far the channels' means of the output moved, in parts of their spread."""
    outs = [
        np.concatenate([runtime.run(runtime.session(one), row)["y"] for row in rows])
        for one in (model, changed)
    ]
    means = [out.mean(axis=(0, 2, 3)) for out in outs]
    return float(np.abs(means[0] - means[1]).max() / outs[0].std())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 16])
def test_corrected_biases_keep_the_mean_of_every_channel(
    tmp_path: Path, groups: int, bias: bool
) -> None:
    model, rows = convs(tmp_path, groups=groups, bias=bias), images(20)
    plain = made(model, rows, STATIC)
    corrected = made(model, rows, STATIC, a_pass("correction"))
    onnx.checker.check_model(corrected, full_check=True)
    assert mean_shift(model, corrected, rows) < 0.3 * mean_shift(model, plain, rows)


def test_a_corrected_conv_without_bias_still_runs_as_integers(tmp_path: Path) -> None:
    model, rows = convs(tmp_path, bias=False), images(8)
    corrected = made(model, rows, STATIC, a_pass("correction"), a_pass("correction"))
    options = runtime.options(optimization="extended")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    runtime.session(corrected, options)
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert found["QLinearConv"] == 3
    assert not found["Conv"]


@pytest.mark.parametrize("after", ["correction", "reconstruction"])
@pytest.mark.parametrize("name", ["quantization", "dynamic"])
@pytest.mark.parametrize("turned", [0, 1])
def test_a_product_is_put_right_in_the_constant_added_to_it(
    tmp_path: Path, name: str, after: str, turned: int
) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(8, 32) if turned else (32, 8)).astype("f4"),
        "b": rng.normal(size=8).astype("f4"),
    }
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=turned)]
    path = models.save(tmp_path / "m.onnx", nodes, weights, {"x": ("N", 32)}, {"y": ("N", 8)})
    model = graph.regular(path)
    rows = [{"x": rng.normal(size=(1, 32)).astype("f4") + 3} for _ in range(30)]
    first = a_pass(name, weights="s8-7bit")
    plain, fixed = made(model, rows, first), made(model, rows, first, a_pass(after))
    assert sqnr(model, fixed, rows) > sqnr(model, plain, rows) + 3


def test_without_inputs_or_integers_nothing_is_corrected(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(3)
    with pytest.raises(BadModel, match="cannot correct biases: no layer has integer weights"):
        made(model, rows, a_pass("correction"))
    with pytest.raises(BadModel, match="cannot round weights again"):
        made(model, rows, a_pass("reconstruction"))
    recipe = Recipe(label="x", passes=(a_pass("correction"),))
    with pytest.raises(BadModel, match="there are no calibration inputs"):
        pipeline.run(recipe, model, calibrate=lambda _: {})


@pytest.mark.parametrize("by", ["activations", "weights"])
@pytest.mark.parametrize("between", ["Relu", "LeakyRelu", "PRelu", "MaxPool", None])
def test_equalized_layers_compute_the_same(tmp_path: Path, by: str, between: str | None) -> None:
    if between == "MaxPool":
        model = _pooled(tmp_path)
    else:
        model = convs(tmp_path, groups=16, between=between, uneven=5)
    rows = images(6)
    changed = made(model, rows, a_pass("equalization", by=by, uneven=1.5))
    assert sqnr(model, changed, rows) > 100
    assert changed.graph.initializer != model.graph.initializer


def _pooled(tmp_path: Path) -> onnx.ModelProto:
    model = convs(tmp_path, groups=16, uneven=5)
    node = next(one for one in model.graph.node if one.op_type == "Relu")
    pool = helper.make_node("MaxPool", list(node.input), list(node.output), kernel_shape=[2, 2])
    node.CopyFrom(pool)
    return model


def test_uneven_channels_before_a_depthwise_conv_lose_less(tmp_path: Path) -> None:
    model, rows = convs(tmp_path, groups=16, uneven=5), images(20)
    plain = made(model, rows, STATIC)
    evened = made(model, rows, a_pass("equalization"), STATIC)
    assert _hidden_sqnr(model, evened, rows) > _hidden_sqnr(model, plain, rows) + 3


def _hidden_sqnr(model: onnx.ModelProto, changed: onnx.ModelProto, rows: Rows) -> float:
    """The mean over channels of how well the depthwise layer's output is kept."""
    outs = []
    for one in (model, changed):
        tapped = onnx.ModelProto()
        tapped.CopyFrom(one)
        del tapped.graph.output[:]
        tapped.graph.output.append(onnx.ValueInfoProto(name="s"))
        session = runtime.session(tapped, runtime.options(optimization="basic"))
        outs.append(np.concatenate([runtime.run(session, row)["s"] for row in rows]))
    # Equalizing the next pair scales what is compared: each channel up to a factor.
    a, b = (np.moveaxis(out, 1, 0).reshape(out.shape[1], -1) for out in outs)
    alive = (a**2).sum(axis=1) > 0
    a, b = a[alive], b[alive]
    factor = (a * b).sum(axis=1, keepdims=True) / np.maximum(
        (b**2).sum(axis=1, keepdims=True), 1e-30
    )
    ratio = (a**2).sum(axis=1) / np.maximum(((a - factor * b) ** 2).sum(axis=1), 1e-30)
    return float(10 * np.log10(ratio).mean())


def test_what_others_read_or_minds_a_scale_is_left_alone(tmp_path: Path) -> None:
    w = np.diag([1.0, 100.0]).astype("f4").reshape(2, 2, 1, 1)
    for middle, last in (
        ([helper.make_node("Sigmoid", ["h"], ["r"])], "r"),
        ([helper.make_node("Clip", ["h", "low", "high"], ["r"])], "r"),
        ([helper.make_node("Add", ["h", "x"], ["r"])], "r"),
    ):
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["h"]),
            *middle,
            helper.make_node("Conv", [last, "w"], ["y"]),
        ]
        held = {"w": w, "low": np.float32(0), "high": np.float32(6)}
        shapes = {"x": ("N", 2, 4, 4)}, {"y": ("N", 2, 4, 4)}
        path = models.save(tmp_path / "m.onnx", nodes, held, *shapes)
        model = onnx.load(path)
        assert equalization.pairs(model) == ()
        with pytest.raises(BadModel, match="cannot equalize: none of 0 pairs"):
            made(model, images(2, 2, size=4), a_pass("equalization"))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("pairs", [False, True])
def test_weights_rounded_again_come_closer(
    tmp_path: Path, per_channel: bool, groups: int, pairs: bool
) -> None:
    model, rows, others = convs(tmp_path, groups=groups), images(40), images(12, seed=1)
    first = a_pass("quantization", weights="s8-7bit", per_channel=per_channel)
    plain = made(model, rows, first)
    better = made(model, rows, first, a_pass("reconstruction", pairs=pairs))
    onnx.checker.check_model(better, full_check=True)
    assert better.ByteSize() < 1.2 * plain.ByteSize()
    assert sqnr(model, better, others) > sqnr(model, plain, others) + 1


def test_pairs_never_saturate_in_any_kernel(tmp_path: Path) -> None:
    # 255 everywhere is the worst that an input can be; sums beyond 16 bits would be cut off.
    rng = np.random.default_rng(0)
    for kind, shape in (
        ("Conv", (8, 6, 1, 1)),
        ("Conv", (8, 7, 3, 3)),
        ("Conv", (8, 1, 3, 3)),
        ("Gemm", (31, 8)),
        ("MatMul", (64, 8)),
    ):
        w = rng.normal(size=shape).astype("f4") + 0.5
        groups = 8 if shape[1] == 1 else 1
        if kind == "Conv":
            size = 8 if groups > 1 else shape[1]
            x = np.ones((1, size, 5, 5), np.float32)
            node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups)
            shapes = {"x": ("N", size, 5, 5)}, {"y": ("N", 8, None, None)}
        else:
            x = np.ones((1, shape[0]), np.float32)
            node = helper.make_node(kind, ["x", "w"], ["y"])
            shapes = {"x": ("N", shape[0])}, {"y": ("N", 8)}
        model = graph.regular(models.save(tmp_path / "m.onnx", [node], {"w": w}, *shapes))
        near = [{"x": x * np.float32(f)} for f in rng.uniform(0.2, 1, 20)] + [{"x": x}]
        rough = [{"x": row["x"] * rng.uniform(0.9, 1, x.shape).astype("f4")} for row in near]
        changed = made(model, [*near, *rough], STATIC, a_pass("reconstruction", pairs=True))
        assert sqnr(model, changed, [{"x": x}]) > 35, (kind, shape)


def test_layers_that_share_weights_keep_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"]),
    ]
    held = {"w": rng.normal(size=(3, 3, 1, 1)).astype("f4")}
    shapes = {"x": ("N", 3, 4, 4)}, {"y": ("N", 3, 4, 4)}
    model = graph.regular(models.save(tmp_path / "m.onnx", nodes, held, *shapes))
    with pytest.raises(BadModel, match="no layer has integer weights of its own"):
        made(model, images(4, size=4), STATIC, a_pass("reconstruction"))
    evened = made(model, images(4, size=4), a_pass("equalization", by="weights", uneven=1.0))
    assert sqnr(model, evened, images(4, size=4)) > 100


@given(
    seed=st.integers(0, 10_000),
    inputs=st.integers(1, 80),
    rows=st.integers(1, 200),
    dead=st.booleans(),
    pair=st.sampled_from([None, 128]),
)
@settings(max_examples=40, deadline=None)
def test_rounding_with_feedback_stays_within_limits_and_is_rarely_worse(
    seed: int, inputs: int, rows: int, dead: bool, pair: int | None
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, inputs)) + 0.1 * rng.normal(
        size=(rows, inputs)
    )
    if dead:
        y[:, ::2] = 0
    gram = (y.T @ y / rows)[None]
    weights = rng.normal(size=(1, 5, inputs))
    limits = feedback.Limits(127 if pair else 15, pair)
    scale = limits.scales(weights)
    factor = feedback.upper(gram, damping=0.01)
    if factor is None:
        assert not gram.any()
        return
    q = feedback.round_all(weights, scale, factor, limits)
    assert np.abs(q).max() <= limits.single
    if pair:
        even = inputs // 2 * 2
        a, b = q[..., 0:even:2], q[..., 1:even:2]
        assert np.abs(np.where(a * b > 0, a + b, 0)).max(initial=0) <= pair
    assert np.isfinite(q).all()
    near = np.clip(np.rint(weights / scale[..., None]), -limits.single, limits.single)

    def lost(integers: np.ndarray) -> float:
        change = weights - integers * scale[..., None]
        damped = gram + 0.01 * np.trace(gram[0]) / inputs * np.eye(inputs)
        return float(np.einsum("goi,gij,goj->", change, damped, change))

    assert lost(q) <= 1.5 * lost(near) + 1e-9


def test_what_says_nothing_gives_no_factor() -> None:
    assert feedback.upper(np.zeros((2, 3, 3)), damping=0.01) is None
    assert feedback.upper(np.full((1, 3, 3), np.nan), damping=0.01) is None
    assert feedback.upper(np.full((1, 3, 3), 1e-300), damping=0.01) is not None


@given(
    seed=st.integers(0, 1000),
    kernel=st.sampled_from([(1,), (3,), (1, 1), (3, 2), (2, 3)]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    pads=st.sampled_from(["SAME_UPPER", "SAME_LOWER", 0, 1]),
)
@settings(max_examples=30, deadline=None)
def test_unfolded_rows_times_weights_are_the_convolution(  # noqa: PLR0917  # as hypothesis calls it
    seed: int, kernel: tuple[int, ...], stride: int, dilation: int, groups: int, pads: Any
) -> None:
    rng = np.random.default_rng(seed)
    rank = len(kernel)
    if isinstance(pads, str):
        dilation = 1  # the runtime refuses the two together
    x = rng.normal(size=(1, 4, *[6] * rank)).astype("f4")
    w = rng.normal(size=(8, 4 // groups, *kernel)).astype("f4")
    how: dict[str, Any] = {"strides": [stride] * rank, "dilations": [dilation] * rank}
    how |= {"auto_pad": pads} if isinstance(pads, str) else {"pads": [pads] * 2 * rank}
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, **how)
    outer = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", 1, x.shape)],
        [helper.make_tensor_value_info("y", 1, [None] * (rank + 2))],
        [numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    model = helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    expected = runtime.run(runtime.session(model), {"x": x})["y"]
    window = moments.Window(
        kernel, (stride,) * rank, (dilation,) * rank,
        pads if isinstance(pads, str) else (pads,) * 2 * rank, groups,
    )  # fmt: skip
    rows = moments.unfold(moments.Input("x", w[0].size * groups, window), x, rng)
    got = rows @ np.swapaxes(w.reshape(groups, 8 // groups, -1), 1, 2)
    flat = np.moveaxis(expected[0].reshape(groups, 8 // groups, -1), 1, 2)
    assert np.allclose(got, flat, atol=1e-4)


def test_evidence_is_bounded_and_right(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(7)
    calls = 0

    def feeds() -> Rows:
        nonlocal calls
        calls += 1
        return rows

    evidence = Evidence(feeds, work_memory_mib=0.01)
    means = evidence.means(model, {"x": "first", "h": "first"})
    stacked = np.concatenate([row["x"] for row in rows])
    assert np.allclose(means["x"], stacked.mean(axis=(0, 2, 3)), atol=1e-5)
    extremes = evidence.extremes(model, {"x": "first"})["x"]
    assert np.allclose(extremes, [stacked.min(axis=(0, 2, 3)), stacked.max(axis=(0, 2, 3))])
    last = evidence.means(model, {"x": "last"}, most=2)["x"]
    assert np.allclose(last, stacked[:2].mean(axis=(0, 1, 2)), atol=1e-5)
    before = calls
    evidence.means(model, {"x": "first", "h": "first"})
    assert calls == before
    wanted = {
        "small": moments.Input("x", 3, moments.Window((1, 1), (1, 1), (1, 1), (0, 0, 0, 0))),
        "large": moments.Input("h", 400, moments.Window((5, 5), (1, 1), (1, 1), (0, 0, 0, 0))),
    }
    assert [key for key, _ in evidence.moments(model, wanted)] == ["small"]


def test_inputs_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    model, rows = convs(tmp_path), images(3)
    rows[1]["x"][0, 0, 0, 0] = np.nan
    evidence = Evidence(lambda: rows)
    assert evidence.means(model, {"h": "first"}) == {}
    window = moments.Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1))
    assert [*evidence.moments(model, {"x": moments.Input("x", 27, window)})] == []
