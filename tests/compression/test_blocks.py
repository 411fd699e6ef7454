"""Weights in blocks of 8 bits: any size of matrix, biases, tables, and what is refused."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from compression import agreement, graph, runtime
from compression.errors import BadModel
from compression.passes import blocks
from compression.regular import reading
from tests.fixtures.trained import collection
from tests.simulators import models


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def product(operator: str, weights: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "K"]) for name in "xy"]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    whole = helper.make_graph([node], "g", values[:1], values[1:], tensors)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def alike(original: onnx.ModelProto, changed: onnx.ModelProto, feeds: Any) -> float:
    a, b = (
        next(iter(runtime.run(runtime.session(one), feeds).values())) for one in (original, changed)
    )
    assert a.shape == b.shape
    return agreement.sqnr_db(*agreement.powers(a, b))


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 150), st.integers(1, 70)),
    st.sampled_from([16, 32, 64, 128, 256]),
    st.sampled_from([0, 4]),
)
@settings(max_examples=40, deadline=None)
def test_a_matrix_of_any_size_is_close(size: tuple[int, int, int], block: Any, level: Any) -> None:
    count, rows, columns = size
    model = product("MatMul", {"w": normal(rows, columns)})
    chosen = blocks.Settings(block=block, accuracy_level=level, least_bytes=0)
    changed = blocks.apply(model, chosen)
    onnx.checker.check_model(changed, full_check=True)
    # Ones leave nothing for activations to be rounded by: what is left is the weights' error.
    ones = np.ones((count, rows), np.float32)
    a, b = (runtime.run(runtime.session(one), {"x": ones})["y"] for one in (model, changed))
    q, scale = blocks.rounded(normal(rows, columns), block=block)
    assert q.shape[0] == scale.shape[0] == columns
    worst = scale.max() * 0.5 * rows
    assert abs(a - b).max() <= worst + 1e-3 * abs(a).max()


@pytest.mark.parametrize(
    ("weights", "attributes"),
    [
        ({"w": normal(100, 40), "b": normal(40)}, {}),
        ({"w": normal(40, 100), "b": normal(1, 40)}, {"transB": 1}),
        ({"w": normal(100, 40), "b": normal(1)}, {}),
        ({"w": normal(40, 100)}, {"transB": 1}),
    ],
)
def test_a_gemm_keeps_its_bias_of_any_shape(
    weights: dict[str, np.ndarray], attributes: dict[str, Any]
) -> None:
    model = product("Gemm", weights, **attributes)
    changed = blocks.apply(model, blocks.Settings())
    assert kinds(changed)["MatMulNBits"] == 1
    assert alike(model, changed, {"x": normal(3, 100, seed=1)}) > 35
    assert changed.ByteSize() < 0.45 * model.ByteSize()


def test_an_outlier_costs_only_its_own_block() -> None:
    weight = normal(256, 16)
    weight[7] *= 300
    model = product("MatMul", {"w": weight})
    x = normal(8, 256, seed=1)
    x[:, :64] = 0  # the blocks that hold the outliers are not asked
    fine, coarse = (
        alike(model, blocks.apply(model, blocks.Settings(block=block)), {"x": x})
        for block in (32, 256)
    )
    assert fine > 35
    assert coarse < 20


def test_a_matrix_is_not_filled_up_by_much() -> None:
    model = product("MatMul", {"w": normal(33, 400)})
    changed = blocks.apply(model, blocks.Settings(block=128))
    (made,) = [node for node in changed.graph.node if node.op_type == "MatMulNBits"]
    values = {one.name: helper.get_attribute_value(one) for one in made.attribute}
    assert (values["K"], values["N"], values["block_size"]) == (33, 400, 16)
    assert changed.ByteSize() < 0.5 * model.ByteSize()


def test_a_trained_encoder_keeps_its_meaning_and_its_tables_are_integers() -> None:
    trained = collection.load("sentences")
    model = graph.regular(trained.onnx)
    changed = blocks.apply(model, blocks.Settings())
    onnx.checker.check_model(changed, full_check=True)
    assert kinds(changed)["MatMulNBits"] >= 4
    tables = [node for node in changed.graph.node if node.op_type == "Gather"]
    held = {tensor.name: tensor.data_type for tensor in changed.graph.initializer}
    assert TensorProto.INT8 in {held.get(node.input[0]) for node in tables}
    assert changed.ByteSize() < 0.4 * model.ByteSize()
    given_ = trained.make_inputs(1, 3)
    feeds = {key.split("::")[0]: array for key, array in given_.items()}
    assert alike(model, changed, feeds) > 25
    assert graph.is_quantized(changed)


def test_it_is_read_again_as_any_model_is(tmp_path: Path) -> None:
    changed = blocks.apply(product("MatMul", {"w": normal(64, 64)}), blocks.Settings())
    onnx.save(changed, tmp_path / "m.onnx")
    again = reading.load(tmp_path / "m.onnx")
    assert {entry.domain for entry in again.opset_import} == {"", "com.microsoft"}


def test_a_table_looked_up_by_rows_gets_a_scale_for_each_column(tmp_path: Path) -> None:
    table = normal(50, 32) * 10.0 ** np.linspace(-3, 3, 32).astype("f4")
    node = helper.make_node("Gather", ["t", "i"], ["y"])
    path = models.save(
        tmp_path / "m.onnx", [node], {"t": table}, {"i": ("N", "L")}, {"y": ("N", "L", 32)},
        dtypes={"i": TensorProto.INT64},
    )  # fmt: skip
    model = onnx.load(path)
    changed = blocks.apply(model, blocks.Settings())
    assert "MatMulNBits" not in kinds(changed)
    feeds = {"i": np.arange(50).reshape(5, 10)}
    a, b = (runtime.run(runtime.session(one), feeds)["y"] for one in (model, changed))
    for column in range(32):
        assert agreement.sqnr_db(*agreement.powers(a[..., column], b[..., column])) > 30
    with pytest.raises(BadModel, match="cannot put weights into blocks"):
        blocks.apply(model, blocks.Settings(tables=False))


def test_nodes_can_stay_float_or_be_chosen() -> None:
    model = product("MatMul", {"w": normal(64, 64)})
    assert blocks.eligible(model, blocks.Settings()) == ("y",)
    for chosen in ({"exclude": ("y",)}, {"only": ("z",)}, {"least_bytes": 10**6}):
        assert blocks.eligible(model, blocks.Settings(**chosen)) == ()
        with pytest.raises(BadModel, match="cannot put weights into blocks: no MatMul"):
            blocks.apply(model, blocks.Settings(**chosen))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_left_alone(value: float) -> None:
    weight = normal(64, 64)
    weight[3, 3] = value
    with pytest.raises(BadModel, match="cannot put weights into blocks"):
        blocks.apply(product("MatMul", {"w": weight}), blocks.Settings())
