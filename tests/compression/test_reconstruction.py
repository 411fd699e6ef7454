"""Weights rounded again, with feedback from what they multiply."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compression import graph
from compression.errors import BadModel
from compression.passes import feedback
from tests.compression.variants import (
    STATIC,
    a_pass,
    convs,
    images,
    made,
    sqnr,
)
from tests.simulators import models


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
