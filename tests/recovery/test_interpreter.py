"""Whole models in torch beside onnxruntime: they answer the same, and take their weights back."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from compression import graph, runtime, samples
from compression.errors import BadModel
from compression.recovery import memory
from compression.recovery.interpreter import Interpreter, tensors
from compression.recovery.parameters import Kind, Parameters
from tests.fixtures import more
from tests.fixtures.models import FIXTURES, Fixture

MODELS = {**FIXTURES, **more.MORE}
FOREIGN = {"silero": {"If"}}
IN_SUITE = ("svhn", "text-angle", "mnist", "silero")
EVERY = [
    name if name in IN_SUITE else pytest.param(name, marks=pytest.mark.prove) for name in MODELS
]
"""Making inputs and regular forms of the others takes most of a minute."""


def first(fixture: Fixture, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    with samples.open_samples(fixture.calibration, runtime.inputs(runtime.session(model))) as held:
        return held.sample(0)


@pytest.mark.parametrize("name", EVERY)
def test_a_fixture_model_answers_as_in_onnxruntime(name: str) -> None:
    fixture = MODELS[name]()
    model = graph.regular(fixture.onnx)
    feeds = first(fixture, model)
    net = Interpreter(model)
    with torch.no_grad():
        found = net.run(tensors(feeds))
    for output, wanted in runtime.run(runtime.session(model), feeds).items():
        largest = float(np.abs(found[output].numpy() - wanted).max())
        assert largest <= 1e-4 * float(np.abs(wanted).max())
    assert net.foreign.operators == FOREIGN.get(name, set())


def test_what_is_written_back_unchanged_is_the_same_file() -> None:
    model = graph.regular(MODELS["svhn"]().onnx)
    held = Parameters(model, Interpreter(model).nodes)
    assert {leaf.kind for leaf in held.leaves.values()} == {Kind.FLOAT}
    assert set(held.leaves) == {one.name for one in model.graph.initializer}
    assert held.write(model).SerializeToString(True) == model.SerializeToString(True)


def test_only_what_learned_is_changed_in_the_file() -> None:
    model = graph.regular(MODELS["svhn"]().onnx)
    held = Parameters(model, Interpreter(model).nodes)
    name = model.graph.node[0].input[1]
    with torch.no_grad():
        held.leaves[name].tensor.mul_(2.0)
    written = held.write(model)
    for before, after in zip(model.graph.initializer, written.graph.initializer, strict=True):
        factor = 2.0 if before.name == name else 1.0
        expected = factor * numpy_helper.to_array(before)
        assert np.array_equal(numpy_helper.to_array(after), expected)
    assert list(written.graph.node) == list(model.graph.node)


def test_masks_grids_and_what_is_not_finite_never_learn() -> None:
    constants = {
        "mask": np.array([0, -10000.0], np.float32), "grid": np.ones((2, 2), np.float32),
        "scale": np.ones((1, 2), np.float32), "w": np.full((2, 2), np.nan, np.float32),
        "one": np.float32(3.0),
    }  # fmt: skip
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["a"]),
        helper.make_node("Add", ["a", "grid"], ["b"]),
        helper.make_node("Mul", ["b", "scale"], ["c"]),
        helper.make_node("Mul", ["c", "one"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [2, 2])],
        [helper.make_tensor_value_info("y", 1, [2, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    assert set(Parameters(model, Interpreter(model).nodes).leaves) == {"scale"}


def test_a_shape_that_does_not_fit_is_told_with_the_operator() -> None:
    node = helper.make_node("MatMul", ["x", "y"], ["z"])
    inputs = [helper.make_tensor_value_info(name, 1, None) for name in "xy"]
    made = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("z", 1, None)])
    net = Interpreter(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]))
    with pytest.raises(BadModel, match="cannot compute MatMul in torch"):
        net.run({"x": torch.ones(2, 3), "y": torch.ones(2, 3)})


def test_gradients_are_the_same_where_what_lies_between_is_computed_again() -> None:
    model = graph.regular(MODELS["svhn"]().onnx)
    feeds = tensors(first(MODELS["svhn"](), model))
    found = []
    for parts in (1, 4):
        net = Interpreter(model)
        net.bounds = memory.divided([1] * len(net.nodes), parts)
        assert len(net.bounds) == parts + 1
        held = Parameters(model, net.nodes)
        inner = model.graph.node[2].output[0]
        made = net.run(feeds, held.values(), wanted=[inner])
        (made["logits"].square().sum() + made[inner].square().sum()).backward()
        found.append({name: leaf.tensor.grad.numpy() for name, leaf in held.leaves.items()})
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-4, atol=1e-5)
