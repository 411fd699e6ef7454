"""Channels between layers scaled alike, and the float model stays what it was."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compression import runtime
from compression.errors import BadModel
from compression.passes import equalization
from tests.compression.variants import (
    STATIC,
    Rows,
    a_pass,
    convs,
    images,
    made,
    sqnr,
)
from tests.simulators import models


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
