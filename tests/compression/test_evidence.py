"""What passes may ask about the calibration inputs: right, finite and bounded."""

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from compression import runtime
from compression.calibration import moments
from compression.calibration.evidence import Evidence
from tests.compression.variants import (
    Rows,
    convs,
    images,
)


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
