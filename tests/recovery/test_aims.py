"""What of a student is compared with what of the original: read off the graphs alone."""

import onnx
import pytest
from onnx import helper

from compression.job import OutputKind, OutputSpec
from compression.recovery import aims
from compression.recovery.aims import Aim


def build(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    """Nodes from `x`; what is named `w` or `w...` is a constant."""
    names = {name for node in nodes for name in node.input if name.startswith("w")}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, None)],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [helper.make_tensor(name, 1, [1], [1.0]) for name in sorted(names)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def node(operator: str, inputs: str, outputs: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split())


def spec(kind: OutputKind, name: str = "y") -> OutputSpec:
    return OutputSpec(name=name, kind=kind)


@pytest.mark.parametrize(
    ("last", "kind", "way"),
    [
        ("Softmax", "logits", "classes"),
        ("Softmax", "steps", "classes"),
        ("Sigmoid", "mask", "odds"),
    ],
)
def test_what_goes_into_a_softmax_or_sigmoid_is_compared(
    last: str, kind: OutputKind, way: aims.Way
) -> None:
    model = build(node("MatMul", "x w", "a"), node(last, "a", "y"))
    assert aims.of_outputs(model, model, (spec(kind),)) == (Aim("a", "a", way),)


def test_the_softmax_of_a_rounded_model_is_found_behind_its_crossing() -> None:
    original = build(node("MatMul", "x w", "a"), node("Softmax", "a", "y"))
    rounded = build(
        node("MatMul", "x w", "b"), node("Softmax", "b", "y_float"),
        node("QuantizeLinear", "y_float w1 w2", "q"), node("DequantizeLinear", "q w1 w2", "y"),
    )  # fmt: skip
    assert aims.of_outputs(original, rounded, (spec("logits"),)) == (Aim("a", "b", "classes"),)


def test_an_output_of_another_maker_is_compared_itself() -> None:
    model = build(node("MatMul", "x w", "y"))
    (found,) = aims.of_outputs(model, model, (spec("logits"),))
    assert (found.teacher, found.student, found.direct) == ("y", "y", True)


def test_boxes_behind_a_suppression_are_compared_by_the_layers_before_it() -> None:
    model = build(
        node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Conv", "b w1", "c"),
        node("Conv", "b w2", "d"), node("NonMaxSuppression", "c d", "e"),
        node("Gather", "c e", "y"),
    )  # fmt: skip
    found = aims.of_outputs(model, model, (spec("detections"),))
    assert [aim.teacher for aim in found] == ["c", "d"]
    assert {aim.way for aim in found} == {"values"}


def test_features_lie_evenly_in_what_both_models_have() -> None:
    names = [f"t{at}" for at in range(21)]
    layers = [
        node("MatMul", f"{a} w{a}", b) for a, b in zip(["x", *names[:-1]], names, strict=True)
    ]
    model = build(*layers, node("Relu", "t20", "y"))
    without = build(*layers[:10], node("Relu", "t9", "y"))
    found = [aim.student for aim in aims.of_features(model, model, most=4)]
    assert found == ["t4", "t8", "t13", "t17"]
    assert len(aims.of_features(model, without, most=100)) == 10
    assert aims.of_features(model, model, most=0) == ()
