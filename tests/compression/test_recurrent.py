"""LSTM in integers: states that are a contract, lengths, directions, and what is left alone."""

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
from compression.passes import recurrent, stored
from tests.fixtures.trained import collection

FEATURES, HIDDEN = 24, 32


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("f4")


def recurrence(
    *, operator: str = "LSTM", direction: str = "forward", states: bool = True,
    lengths: bool = False, peepholes: bool = False, bias: bool = True, last: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """`x` [T, N, features] -> all steps, or the last state alone; states come and go."""
    sides = 2 if direction == "bidirectional" else 1
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[operator]
    constants = {
        "w": normal(sides, gates * HIDDEN, FEATURES, seed=1, scale=FEATURES**-0.5),
        "r": normal(sides, gates * HIDDEN, HIDDEN, seed=2, scale=HIDDEN**-0.5),
    }
    if bias:
        constants["b"] = normal(sides, 2 * gates * HIDDEN, seed=3, scale=0.1)
    if peepholes:
        constants["p"] = normal(sides, 3 * HIDDEN, seed=4, scale=0.1)
    inputs = ["x", "w", "r", "b" if bias else "", "lengths" if lengths else ""]
    shapes: dict[str, tuple[int, list[Any]]] = {"x": (TensorProto.FLOAT, ["T", "N", FEATURES])}
    if lengths:
        shapes["lengths"] = TensorProto.INT32, ["N"]
    kept = ["h", "c"] if operator == "LSTM" else ["h"]
    if states:
        inputs += kept
        shapes |= {name: (TensorProto.FLOAT, [sides, "N", HIDDEN]) for name in kept}
    if peepholes:
        inputs += [""] * (7 - len(inputs)) + ["p"]
    made = ["" if last else "y", *(f"{name}n" for name in kept)]
    given_ = {
        "y": ["T", sides, "N", HIDDEN],
        "hn": [sides, "N", HIDDEN],
        "cn": [sides, "N", HIDDEN],
    }
    node = helper.make_node(
        operator, inputs, made, "recurrence", hidden_size=HIDDEN, direction=direction, **attributes
    )
    whole = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(name, *what) for name, what in shapes.items()],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, given_[name])
            for name in made if name
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feeds(model: onnx.ModelProto, *, steps: int = 9, batch: int = 3) -> dict[str, np.ndarray]:
    sizes = {"T": steps, "N": batch}
    found = {}
    for at, value in enumerate(model.graph.input):
        kind = value.type.tensor_type
        shape = [sizes.get(dim.dim_param) or dim.dim_value for dim in kind.shape.dim]
        found[value.name] = normal(*shape, seed=10 + at, scale=0.7)
        if kind.elem_type == TensorProto.INT32:
            found[value.name] = np.array([steps, 2, 1][:batch], np.int32)
    return found


def alike(original: onnx.ModelProto, changed: onnx.ModelProto, given_: Any) -> float:
    a, b = (runtime.run(runtime.session(one), given_) for one in (original, changed))
    assert {name: array.shape for name, array in a.items()} == {
        name: array.shape for name, array in b.items()
    }
    return min(agreement.sqnr_db(*agreement.powers(a[name], b[name])) for name in a)


@given(
    st.sampled_from(["forward", "reverse", "bidirectional"]),
    st.fixed_dictionaries({name: st.booleans() for name in ("states", "lengths", "bias", "last")}),
    st.sampled_from(["s8-7bit", "u8"]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_every_form_of_lstm_is_close(
    direction: str, form: dict[str, bool], weights: Any, per_channel: bool
) -> None:
    model = recurrence(direction=direction, **form)
    chosen = recurrent.Settings(weights=weights, per_channel=per_channel)
    changed = recurrent.apply(model, chosen)
    onnx.checker.check_model(changed, full_check=True)
    assert alike(model, changed, feeds(model)) > 22
    assert changed.ByteSize() < 0.4 * model.ByteSize()
    for part in ("input", "output"):
        assert getattr(changed.graph, part) == getattr(model.graph, part)


@pytest.mark.parametrize(
    "attributes",
    [
        {"clip": 0.5},
        {"input_forget": 1},
        {"activations": ["Sigmoid", "Tanh", "Relu"]},
        {
            "activations": ["HardSigmoid", "Tanh", "Tanh"],
            "activation_alpha": [0.3], "activation_beta": [0.4],
        },
    ],
)  # fmt: skip
def test_attributes_are_kept(attributes: dict[str, Any]) -> None:
    model = recurrence(**attributes)
    assert alike(model, recurrent.apply(model, recurrent.Settings(weights="u8")), feeds(model)) > 22


def test_states_go_round_as_they_did() -> None:
    model = recurrence()
    changed = recurrent.apply(model, recurrent.Settings(weights="u8"))
    loaded = runtime.session(changed)
    whole = feeds(model, steps=8)
    once = runtime.run(loaded, whole)
    states = {name: whole[name] for name in ("h", "c")}
    for at in range(8):
        got = runtime.run(loaded, {"x": whole["x"][at : at + 1], **states})
        states = {"h": got["hn"], "c": got["cn"]}
    assert agreement.sqnr_db(*agreement.powers(once["cn"], states["c"])) > 22


@pytest.mark.parametrize("form", [{"peepholes": True}, {"operator": "GRU"}, {"operator": "RNN"}])
def test_what_has_no_such_kernel_is_left_to_be_stored(form: dict[str, Any]) -> None:
    model = recurrence(**form)
    assert recurrent.eligible(model, recurrent.Settings()) == ()
    with pytest.raises(BadModel, match="cannot quantize recurrent layers: no plain LSTM"):
        recurrent.apply(model, recurrent.Settings())
    changed = stored.apply(model, stored.Settings())
    assert changed.ByteSize() < 0.45 * model.ByteSize()
    assert alike(model, changed, feeds(model)) > 30


def test_a_gru_that_resets_behind_its_product_is_stored_as_any() -> None:
    model = recurrence(operator="GRU", linear_before_reset=1, direction="bidirectional")
    assert alike(model, stored.apply(model, stored.Settings()), feeds(model)) > 30


@pytest.mark.parametrize("chosen", [{"exclude": ("y",)}, {"only": ("z",)}])
def test_nodes_can_stay_float(chosen: dict[str, Any]) -> None:
    model = recurrence()
    assert recurrent.eligible(model, recurrent.Settings()) == ("y",)
    with pytest.raises(BadModel, match="cannot quantize recurrent layers"):
        recurrent.apply(model, recurrent.Settings(**chosen))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_left_alone(value: float) -> None:
    model = recurrence()
    spoiled = np.array(numpy_helper.to_array(model.graph.initializer[0]))
    spoiled[0, 0, 0] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(spoiled, "w"))
    assert recurrent.eligible(model, recurrent.Settings()) == ()


def test_two_layers_that_share_weights_share_their_integers(tmp_path: Path) -> None:
    model = recurrence(states=False)
    second = onnx.NodeProto()
    second.CopyFrom(model.graph.node[0])
    second.output[:] = ["y2", "", ""]
    model.graph.node.append(second)
    model.graph.output.append(
        helper.make_tensor_value_info("y2", TensorProto.FLOAT, ["T", 1, "N", HIDDEN])
    )
    one = recurrent.apply(recurrence(states=False), recurrent.Settings())
    both = recurrent.apply(model, recurrent.Settings())
    assert both.ByteSize() < one.ByteSize() + 1000
    assert len(recurrent.eligible(model, recurrent.Settings())) == 2


def test_the_trained_gru_is_stored() -> None:
    model = graph.regular(collection.load("keywords").onnx)
    kept = stored.storable(model, stored.Settings())
    gru = next(node for node in model.graph.node if node.op_type == "GRU")
    assert set(gru.input[1:3]) <= set(kept)
