"""Short names: the same model in fewer bytes, and nothing that others hold on to changes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression import runtime
from compression.passes import naming
from tests.simulators import models


def same(before: onnx.ModelProto, after: onnx.ModelProto, feeds: dict) -> None:
    onnx.checker.check_model(after, full_check=True)
    assert [one.name for one in after.graph.input] == [one.name for one in before.graph.input]
    old, new = (runtime.run(runtime.session(one), feeds) for one in (before, after))
    assert list(old) == list(new)
    for name, array in old.items():
        assert np.array_equal(array, new[name])


def test_a_model_computes_the_same_under_short_names(tmp_path: Path) -> None:
    model = onnx.load(models.cnn(tmp_path / "m.onnx"))
    short = naming.shorten(model)
    feeds = {key: rows[:1] for key, rows in models.sample_inputs(tmp_path / "m.onnx", 1).items()}
    same(model, short, feeds)
    assert short.ByteSize() < model.ByteSize()
    assert max(len(one.name) for one in short.graph.initializer) == 1
    assert [one.name for one in short.graph.output] == ["logits"]


def test_metadata_and_opsets_are_kept(tmp_path: Path) -> None:
    model = onnx.load(models.constants_in_nodes(tmp_path / "m.onnx"))
    short = naming.shorten(model)
    assert short.metadata_props == model.metadata_props
    assert short.opset_import == model.opset_import


def branches(inner: str) -> onnx.ModelProto:
    """Both branches read `outside`, and have a constant of their own under the same name."""
    bodies = [
        helper.make_graph(
            [helper.make_node(kind, ["outside", inner], [f"{kind}_result"])],
            kind, [], [helper.make_tensor_value_info(f"{kind}_result", TensorProto.FLOAT, [3])],
            [numpy_helper.from_array(np.full(3, value, np.float32), inner)],
        )
        for kind, value in (("Mul", 2), ("Add", 5))
    ]  # fmt: skip
    nodes = [
        helper.make_node("Neg", ["x"], ["outside"]),
        helper.make_node("If", ["which"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [
            helper.make_tensor_value_info("which", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_equal_constants_become_one() -> None:
    arrays = {
        "zeros": np.zeros(3, np.float32), "again": np.zeros(3, np.float32),
        "other": np.zeros(3, np.int32), "longer": np.zeros((1, 3), np.float32),
        "output": np.zeros(3, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["other"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sum", ["x", "zeros", "again", "cast", "longer"], ["y"]),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])
              for name in ("x", "output")}  # fmt: skip
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [values["x"]], [y, values["output"]], tensors)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    short = naming.shorten(model)
    same(model, short, {"x": np.arange(3, dtype=np.float32)})
    assert len(short.graph.initializer) == 4  # "again" is gone, an output is not


@pytest.mark.parametrize("inner", ["constant", "a", "b"])
@pytest.mark.parametrize("which", [True, False])
def test_what_a_branch_reads_from_outside_is_still_found(inner: str, which: bool) -> None:
    model = branches(inner)
    feeds = {"which": np.array(which), "x": np.arange(3, dtype=np.float32)}
    same(model, naming.shorten(model), feeds)


def test_an_input_that_is_called_like_a_short_name_keeps_it() -> None:
    nodes = [helper.make_node("Neg", ["b"], ["t"]), helper.make_node("Exp", ["t"], ["a"])]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    short = naming.shorten(model)
    same(model, short, {"b": np.ones(2, np.float32)})
    assert short.graph.node[0].output[0] == "c"


def test_more_constants_than_letters_all_have_names_of_their_own() -> None:
    nodes, last = [], "x"
    constants = []
    for number in range(60):
        constants.append(numpy_helper.from_array(np.float32(number), f"constant number {number}"))
        nodes.append(helper.make_node("Add", [last, constants[-1].name], [f"sum {number}"]))
        last = f"sum {number}"
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [2])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    short = naming.shorten(model)
    names = [one.name for one in short.graph.initializer]
    assert len(set(names)) == 60
    same(model, short, {"x": np.zeros(2, np.float32)})
