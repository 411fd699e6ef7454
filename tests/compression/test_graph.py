"""Models made regular: same answers, same names, same metadata; bad files in one line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compression import graph, runtime
from compression.meaning import description
from tests.simulators import models


def sample(path: Path) -> dict[str, np.ndarray]:
    return models.sample_inputs(path, 1)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
def test_constants_become_initializers_and_the_opset_is_raised(tmp_path: Path, opset: int) -> None:
    path = models.constants_in_nodes(tmp_path / "m.onnx", opset=opset)
    model = graph.regular(path, sample=sample(path))
    onnx.checker.check_model(model, full_check=True)
    assert "Constant" not in {node.op_type for node in model.graph.node}
    assert len(model.graph.initializer) == 10
    assert graph.opset(model) == (17 if opset < 13 else opset)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("character", "abc")]
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    want = runtime.run(runtime.session(path), sample(path))
    got = runtime.run(runtime.session(model), sample(path))
    assert graph.difference(want, got) < 1e-5


def test_batch_normalization_and_a_separate_bias_are_folded_into_conv(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(4, 3, 3, 3)).astype("f4"),
        "bias": random.normal(size=(1, 4, 1, 1)).astype("f4"),
        **{n: random.uniform(0.5, 2, 4).astype("f4") for n in ("scale", "b", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "scale", "b", "mean", "var"], ["y"]),
    ]
    shapes = {"x": ("N", 3, 8, 8)}, {"y": ("N", 4, 6, 6)}
    path = models.save(tmp_path / "m.onnx", nodes, weights, *shapes)
    model = graph.regular(path, sample=sample(path))
    assert [node.op_type for node in model.graph.node] == ["Conv"]


def test_initializers_that_pose_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 16]))
    path.write_bytes(model.SerializeToString())
    regular = graph.regular(path)
    assert [value.name for value in regular.graph.input] == ["x"]
    assert [spec.name for spec in description.describe(path).inputs] == ["x"]


def test_describes_inputs_and_guesses_what_outputs_mean(tmp_path: Path) -> None:
    found = description.describe(models.cnn(tmp_path / "m.onnx"))
    assert [(one.name, one.dtype, one.shape) for one in found.inputs] == [
        ("image", "float32", (-1, 3, 32, 32))
    ]
    assert [(one.name, one.kind) for one in found.outputs] == [("logits", "logits")]
    assert found.guessed == ("logits",)
    assert found.operators["Conv"] == 4
