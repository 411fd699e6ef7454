"""Each operator in torch beside onnxruntime's own, in the forms that real graphs have it in."""

import numpy as np
import pytest

from compression import runtime
from compression.recovery import interpreter
from compression.recovery.operators import table
from tests.recovery.cases import CASES
from tests.recovery.one_node import Case, build, values

FOREIGN = {"OneHot"}
"""Not in the table: onnxruntime runs them."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_operator_answers_as_onnxruntime_does(case: Case) -> None:
    model, feeds = build(case)
    wanted = runtime.run(runtime.session(model, runtime.options(optimization="disabled")), feeds)
    net = interpreter.Interpreter(model)
    found = net.run(interpreter.tensors(feeds))
    for name, expected in wanted.items():
        answered = found[name].numpy()
        assert answered.shape == expected.shape
        assert answered.dtype == expected.dtype
        np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=2e-5)


def test_what_the_table_lacks_is_run_by_onnxruntime_and_named() -> None:
    lacking = {case.operator for case in CASES if not case.domain} - set(table.OPERATORS)
    assert lacking == FOREIGN
    (case,) = (one for one in CASES if one.operator == "OneHot")
    model, feeds = build(case)
    net = interpreter.Interpreter(model)
    net.run(interpreter.tensors(feeds))
    assert net.unknown() == ("OneHot",)
    assert net.foreign.operators == {"OneHot"}


def test_gradients_reach_weights_and_stop_where_torch_has_no_form() -> None:
    for attributes, reached in (({"kernel_shape": [2, 2]}, True), ({"clip": 0.5}, False)):
        operator = "Conv" if reached else "LSTM"
        (case, *_) = (
            one for one in CASES
            if one.operator == operator and (reached or one.attributes.get("clip"))
        )  # fmt: skip
        assert reached or attributes["clip"] == case.attributes["clip"]
        model, feeds = build(case)
        held = interpreter.tensors(feeds)
        weights = held["in1"].requires_grad_()
        made = interpreter.Interpreter(model).run(held)["out0"]
        assert made.requires_grad == reached
        if reached:
            made.sum().backward()
            assert float(weights.grad.abs().max()) > 0


def test_fake_quantization_rounds_as_onnxruntime_does() -> None:
    zero = np.array(131, np.uint8)
    x = np.concatenate([values(1000, low=-5, high=5), np.arange(-6, 6, 0.05, np.float32)])
    quantize = build(Case("QuantizeLinear", (x, np.float32(0.1), zero), constant=(1, 2)))
    model, feeds = quantize
    wanted = runtime.run(runtime.session(model), feeds)["out0"]
    found = interpreter.Interpreter(model).run(interpreter.tensors(feeds))["out0"]
    assert np.array_equal(found.numpy(), wanted.astype(np.float32))
