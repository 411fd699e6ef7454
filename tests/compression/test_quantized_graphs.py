"""Any small graph of supported layers becomes a valid int8 model."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from compression import graph, runtime
from compression.passes import rounding
from tests.compression.layered_graphs import LAYERS, few_wide, random_graph
from tests.compression.variants import (
    feeds_of,
    variant,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    layers=st.lists(st.sampled_from(sorted(LAYERS)), max_size=6).filter(few_wide),
    seed=st.integers(0, 1000),
    opset=st.sampled_from([11, 13, 17, 18]),
    everything=st.booleans(),
    weights=st.sampled_from(sorted(rounding.WEIGHTS)),
    per_channel=st.booleans(),
)
def test_any_small_graph_becomes_valid_runs_and_keeps_its_weights(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    layers: list[str], seed: int, opset: int, everything: bool, weights: str, per_channel: bool,
) -> None:  # fmt: skip
    path = random_graph(tmp_path_factory.mktemp("g") / "m.onnx", layers, seed=seed, opset=opset)
    operators = ["*"] if everything else ["Conv", "Gemm", "MatMul"]
    changed = variant(
        path, {"operators": operators, "weights": weights, "per_channel": per_channel}
    )
    onnx.checker.check_model(changed, full_check=True)
    plain = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options = runtime.options()
    options.graph_optimization_level = plain
    row = feeds_of(path, seed=3)[0]
    want = runtime.run(runtime.session(path), row)["y"]
    got = runtime.run(runtime.session(changed, options), row)["y"]
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    _weights_are_within_half_a_step(graph.regular(path, sample=row), changed)


def _weights_are_within_half_a_step(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    constants = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    floats = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    checked = 0
    for node in after.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        q, scale, zero = (constants[name].astype(np.float64) for name in node.input)
        name = next(n for n in floats if node.input[0].startswith(f"{n}_quantized"))
        axis = next((a.i for a in node.attribute if a.name == "axis"), None)
        if axis is not None and scale.ndim:
            shape = [-1 if at == axis else 1 for at in range(q.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        error = np.abs((q - zero) * scale - floats[name].reshape(q.shape))
        assert (error <= scale * 0.5 * (1 + 1e-5) + 1e-12).all()
        checked += 1
    assert checked
