"""Requests and responses of the Open Inference Protocol v2, in JSON and binary (no I/O).

Specification: KServe "Open Inference Protocol" (inference_rest.md) and Triton's
extension_binary_data.md: a JSON object, then raw tensors in order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.tensors import Array, Dtype, Shape

HEADER_LENGTH = "Inference-Header-Content-Length"
JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"


class Wanted(NamedTuple):
    """One output that was asked for by name, and whether it goes out in binary."""

    name: str
    binary: bool


class Spec(NamedTuple):
    """One input or output of a model; dims of -1 are free."""

    name: str
    dtype: Dtype
    shape: Shape


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What was asked: arrays by input name. No `outputs` means all of them."""

    inputs: dict[str, Array]
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False
    """For outputs that were not named."""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body in parts; `json_bytes` is the first part's length where raw tensors follow it."""

    parts: list[bytes | memoryview]
    json_bytes: int | None = None


def read_request(body: memoryview, *, json_bytes: int | None = None) -> InferRequest:
    """Read the body of an infer request; binary inputs share its memory.

    `json_bytes` is the length of the JSON where raw tensors follow it, else None.

    Raises:
        BadInput: not JSON, a field of the wrong type, or a tensor that is not what it says;
            the message names the input.
    """
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise BadInput(f"cannot split a body of {len(body)} bytes after {json_bytes} bytes")
    try:
        document = orjson.loads(body[:json_bytes])
    except orjson.JSONDecodeError as error:
        raise BadInput(f"cannot read the request as JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput("cannot read the request: its JSON is no object")
    identity = document.get("id")
    if not isinstance(identity, str | None):
        raise BadInput(f"cannot read the request: id {identity!r:.40} is no string")
    binary = _flag(document, "the request", "binary_data_output", default=False)
    tail = body[len(body) if json_bytes is None else json_bytes :]
    return InferRequest(
        inputs=_read_inputs(_listed(document, "inputs"), tail),
        outputs=tuple(_read_wanted(each, binary) for each in _listed(document, "outputs")),
        binary=binary,
        id=identity,
    )


def _read_inputs(listed: Sequence[dict[str, Any]], tail: memoryview) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    at = 0
    for tensor in listed:
        name = tensor["name"]
        if name in inputs:
            raise BadInput(f"cannot read input '{name}': given twice")
        shape, dtype = tensors.header(name, tensor)
        parameters = _parameters(tensor, f"input '{name}'")
        if "shared_memory_region" in parameters:
            raise BadInput(f"cannot read input '{name}': shared memory is not offered here")
        if "binary_data_size" not in parameters:
            inputs[name] = tensors.from_json(name, tensor.get("data"), dtype=dtype, shape=shape)
            continue
        size = parameters["binary_data_size"]
        if type(size) is not int or not 0 <= size <= len(tail) - at:
            raise BadInput(
                f"cannot read input '{name}': binary_data_size {size!r:.40}, "
                f"but {len(tail) - at} bytes are left in the body"
            )
        inputs[name] = tensors.from_bytes(name, tail[at : at + size], dtype=dtype, shape=shape)
        at += size
    if at != len(tail):
        raise BadInput(f"cannot read the request: {len(tail) - at} bytes after the last input")
    return inputs


def _read_wanted(tensor: dict[str, Any], binary: bool) -> Wanted:
    what = f"output '{tensor['name']}'"
    for extension in ("classification", "shared_memory_region"):
        if extension in _parameters(tensor, what):
            raise BadInput(f"cannot give {what}: {extension} is not offered here")
    return Wanted(tensor["name"], _flag(tensor, what, "binary_data", default=binary))


def _listed(document: dict[str, Any], field: str) -> list[dict[str, Any]]:
    listed = document.get(field)
    if listed is None and field == "outputs":
        return []
    if not isinstance(listed, list):
        raise BadInput(f"cannot read the request: {field} is no list of tensors")
    for tensor in listed:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise BadInput(f"cannot read the request: one of {field} has no name")
    return listed


def _parameters(holder: dict[str, Any], what: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadInput(f"cannot read {what}: parameters is no object")
    return parameters


def _flag(holder: dict[str, Any], what: str, name: str, *, default: bool) -> bool:
    value = _parameters(holder, what).get(name, default)
    if not isinstance(value, bool):
        raise BadInput(f"cannot read {what}: {name} {value!r:.40} is not true or false")
    return value


def read_raw(body: memoryview, *, inputs: Sequence[Spec]) -> InferRequest:
    """Read a raw binary request: the whole body is the only input, the batch is 1.

    Raises:
        BadInput: the model has another number of inputs or more than one free dimension, or
            the body does not fill the shape.
    """
    if len(inputs) != 1:
        raise BadInput(f"cannot read a raw request: the model has {len(inputs)} inputs")
    name, dtype, shape = inputs[0]
    if shape and shape[0] == -1:
        shape = (1, *shape[1:])
    if shape.count(-1) > 1:
        raise BadInput(f"cannot read input '{name}' raw: shape {list(shape)} is not known")
    if dtype.kind == "O":
        whole = len(body).to_bytes(4, "little") + body.tobytes()
        array = tensors.from_bytes(name, memoryview(whole), dtype=dtype, shape=(1,))
        return InferRequest({name: array}, binary=True)
    if -1 in shape:
        known = dtype.itemsize * -math.prod(shape)
        shape = tuple(len(body) // max(known, 1) if dim == -1 else dim for dim in shape)
    return InferRequest(
        {name: tensors.from_bytes(name, body, dtype=dtype, shape=shape)}, binary=True
    )


def write_response(head: dict[str, Any], outputs: Sequence[tuple[str, Array, bool]]) -> Encoded:
    """Write `head` (model_name, model_version, id) and the outputs (name, array, binary?).

    Raises:
        BadInput: an output in FP16 that was not asked for in binary.
    """
    listed: list[dict[str, Any]] = []
    raw: list[memoryview] = []
    for name, array, binary in outputs:
        tensor: dict[str, Any] = {
            "name": name,
            "shape": array.shape,
            "datatype": tensors.NAMES[array.dtype],
        }
        if binary:
            data = tensors.to_bytes(array)
            raw.append(data)
            tensor["parameters"] = {"binary_data_size": len(data)}
        else:
            tensor["data"] = tensors.to_json(name, array)
        listed.append(tensor)
    text = orjson.dumps({**head, "outputs": listed}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded([text, *raw], len(text) if raw else None)
