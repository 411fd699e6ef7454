"""Tensors of the Open Inference Protocol: what goes out comes back, what is wrong is told."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.errors import BadInput
from agent.protocol import oip, oip_requests, tensors
from agent.protocol.oip import Output, Spec

NUMBERS = sorted(set(tensors.DATATYPES) - {"BYTES"})


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    return arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    datatype = draw(st.sampled_from([*NUMBERS, "BYTES"]))
    shape = draw(shapes())
    if datatype != "BYTES":
        return draw(arrays.arrays(tensors.DATATYPES[datatype], shape))
    array = np.empty(shape, object)
    for at in np.ndindex(shape):
        array[at] = draw(st.text(st.characters(codec="utf-8"), max_size=6))
    return array


def as_request(encoded: oip.Encoded) -> oip.InferRequest:
    """Read a response as if it were a request: outputs and inputs have one form."""
    text = bytes(encoded.parts[0]).replace(b'"outputs"', b'"inputs"', 1)
    body = b"".join([text, *map(bytes, encoded.parts[1:])])
    length = None if encoded.json_bytes is None else len(text)
    return oip_requests.read_request(memoryview(body), json_bytes=length)


def read(tensor: dict[str, Any], tail: bytes = b"") -> np.ndarray[Any, Any]:
    text = json.dumps({"inputs": [{"name": "x", **tensor}]}).encode()
    length = len(text) if tail else None
    return oip_requests.read_request(memoryview(text + tail), json_bytes=length).inputs["x"]


@given(st.lists(any_array(), min_size=1, max_size=3))
def test_what_is_written_in_binary_is_read_again(listed: list[np.ndarray[Any, Any]]) -> None:
    encoded = oip.write_response({}, [Output(f"t{i}", each, True) for i, each in enumerate(listed)])
    inputs = as_request(encoded).inputs
    for index, array in enumerate(listed):
        back = inputs[f"t{index}"]
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.tolist() == array.tolist() or np.array_equal(back, array, equal_nan=True)


@given(any_array().filter(lambda array: array.dtype != np.float16))
def test_what_is_written_as_json_is_read_again(array: np.ndarray[Any, Any]) -> None:
    if array.dtype.kind == "f":
        array = np.nan_to_num(array, nan=0.0)
    encoded = oip.write_response({}, [Output("x", array)])
    assert encoded.json_bytes is None
    back = as_request(encoded).inputs["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@given(any_array().filter(lambda array: array.dtype != np.float16 and array.dtype.kind != "f"))
def test_nested_and_flat_lists_are_the_same(array: np.ndarray[Any, Any]) -> None:
    tensor = {"shape": list(array.shape), "datatype": tensors.NAMES[array.dtype]}
    flat = read({**tensor, "data": array.ravel().tolist()})
    nested = read({**tensor, "data": array.tolist() if array.ndim else [array.item()]})
    assert flat.tolist() == nested.tolist() == array.tolist()


@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(-1, 220)))
def test_no_body_does_more_than_be_refused(body: bytes, json_bytes: int | None) -> None:
    with pytest.raises(BadInput, match=r"^cannot "):
        oip_requests.read_request(memoryview(body), json_bytes=json_bytes)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(tensors.DATATYPES)), JSON_VALUES, JSON_VALUES)
def test_any_data_fits_exactly_or_is_refused(datatype: str, shape: Any, data: Any) -> None:
    text = json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}
    )
    try:
        array = oip_requests.read_request(memoryview(text.encode())).inputs["x"]
    except BadInput:
        return
    assert array.dtype == tensors.DATATYPES[datatype]
    assert list(array.shape) == shape


def test_binary_data_are_not_copied_where_they_are_aligned() -> None:
    data = memoryview(np.arange(1000, dtype="<f4").tobytes())
    array = tensors.from_bytes("x", data, dtype=np.dtype("<f4"), shape=(10, 100))
    assert np.shares_memory(array, np.frombuffer(data, "u1"))


def test_binary_data_that_lie_askew_are_copied() -> None:
    data = memoryview(b"?" + np.arange(6, dtype="<f8").tobytes())[1:]
    array = tensors.from_bytes("x", data, dtype=np.dtype("<f8"), shape=(6,))
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ({"shape": [2], "datatype": "FP32", "data": [1]}, r"1 values for shape \[2\]"),
        ({"shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3]]}, "not nested"),
        ({"shape": [2, 2], "datatype": "FP32", "data": [[1, 2], 3]}, "not nested"),
        ({"shape": [1], "datatype": "FP32", "data": [None]}, "NoneType, not only FP32"),
        ({"shape": [1], "datatype": "FP32", "data": ["1"]}, "str, not only FP32"),
        ({"shape": [1], "datatype": "FP32", "data": [1e39]}, "does not fit FP32"),
        ({"shape": [1], "datatype": "INT32", "data": [1.0]}, "float, not only INT32"),
        ({"shape": [1], "datatype": "INT32", "data": [True]}, "bool, not only INT32"),
        ({"shape": [2], "datatype": "UINT8", "data": [0, 256]}, "0 to 256 do not fit UINT8"),
        ({"shape": [2], "datatype": "UINT64", "data": [2**63, -1]}, "do not fit UINT64"),
        ({"shape": [1], "datatype": "BOOL", "data": [1]}, "int, not only BOOL"),
        ({"shape": [1], "datatype": "FP16", "data": [1.0]}, "FP16 has no form in JSON"),
        ({"shape": [1], "datatype": "BF16", "data": [1.0]}, "'BF16' is none of"),
        ({"shape": [-1], "datatype": "FP32", "data": [1.0]}, "no list of dimensions"),
        ({"shape": [1] * 33, "datatype": "FP32", "data": [1.0]}, "no list of dimensions"),
        ({"shape": [1], "datatype": "FP32"}, "not a list"),
        ({"shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}, "0 bytes are"),
        ({"shape": [1], "datatype": "FP32", "parameters": []}, "parameters is no object"),
        (
            {"shape": [1], "datatype": "FP32", "parameters": {"shared_memory_region": "r"}},
            "in shared memory: region 'r', byte_size None",
        ),
    ],
)
def test_says_which_input_is_wrong_and_how(tensor: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=f"^cannot read input 'x': .*{why}"):
        read(tensor)


@pytest.mark.parametrize(
    ("tail", "why"),
    [
        (b"\x00" * 7, "7 bytes are left"),
        (b"\x00" * 9, "1 bytes after the last input"),
    ],
)
def test_the_bytes_must_be_as_many_as_announced(tail: bytes, why: str) -> None:
    tensor = {"shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    with pytest.raises(BadInput, match=why):
        read(tensor, tail)


def test_a_shape_that_needs_other_bytes_is_refused() -> None:
    tensor = {"shape": [2**20, 2**20], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    with pytest.raises(BadInput, match=r"8 bytes of data, shape .* needs \d{13}"):
        read(tensor, b"\x00" * 8)


def test_a_shape_that_no_memory_holds_is_refused() -> None:
    tensor = {"shape": [2**40, 2**40], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    with pytest.raises(BadInput, match="is more than memory holds"):
        read(tensor, b"\x00" * 8)


@pytest.mark.parametrize("data", [b"\x05\x00\x00\x00abc", b"\xff\xff\xff\xff", b"\x01\x00"])
def test_strings_that_end_after_the_data_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="ends after"):
        tensors.from_bytes("x", memoryview(data), dtype=np.dtype("O"), shape=(1,))


def test_an_input_may_be_given_once() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    with pytest.raises(BadInput, match="'x': given twice"):
        oip_requests.read_request(memoryview(json.dumps({"inputs": [tensor, tensor]}).encode()))


def test_lists_nested_beyond_reason_are_refused() -> None:
    text = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 5000
    with pytest.raises(BadInput, match=r"^cannot read the request as JSON"):
        oip_requests.read_request(memoryview(text))


def test_a_raw_body_fills_the_one_free_dimension() -> None:
    image = Spec("x", np.dtype("<f4"), (-1, 3, -1))
    body = memoryview(np.arange(12, dtype="<f4").tobytes())
    assert oip_requests.read_raw(body, inputs=[image]).inputs["x"].shape == (1, 3, 4)


@pytest.mark.parametrize("shape", [(-1, -1, -1), (-1, 5), (-1, 0, -1)])
def test_a_raw_body_that_does_not_fill_the_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"^cannot read input 'x'"):
        oip_requests.read_raw(memoryview(bytes(12)), inputs=[Spec("x", np.dtype("<f4"), shape)])


def test_what_was_read_before_is_not_mistaken_for_what_comes_now() -> None:
    def asked(value: float, **changed: Any) -> oip.InferRequest:
        tensor = {"name": "x", "shape": [2], "datatype": "FP32", **changed}
        tensor.setdefault("parameters", {"binary_data_size": 8})
        text = json.dumps({"inputs": [tensor], "id": "1"}).encode()
        body = text + np.full(2, value, "f4").tobytes()
        return oip_requests.read_request(memoryview(body), json_bytes=len(text))

    first, second = asked(1.0), asked(2.0)
    assert first.inputs["x"].tolist() == [1, 1]
    assert second.inputs["x"].tolist() == [2, 2]
    assert asked(3.0, shape=[1, 2]).inputs["x"].shape == (1, 2)
    for _ in range(2):
        with pytest.raises(BadInput, match="shape"):
            asked(1.0, shape=[3])


def test_tensors_are_bounded_in_number() -> None:
    tensors_ = [
        {"name": str(at), "shape": [0], "datatype": "FP32", "data": []} for at in range(1025)
    ]
    for field in ("inputs", "outputs"):
        text = json.dumps({"inputs": [], field: tensors_}).encode()
        with pytest.raises(BadInput, match=f"cannot read 1025 {field}: at most 1024"):
            oip_requests.read_request(memoryview(text))
