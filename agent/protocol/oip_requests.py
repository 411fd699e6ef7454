"""Reads the requests of the Open Inference Protocol v2, in JSON and binary (no I/O).

What is read is checked for form; whether it fits a model is for the model to say.
"""

import math
from collections.abc import Sequence
from typing import Any

import orjson

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.oip import InferRequest, Shared, SharedTensor, Spec, Wanted
from agent.protocol.tensors import Array

_MOST_CLASSES = 2**31


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
    parameters = _parameters(document, "the request")
    binary = _flag(parameters, "the request", "binary_data_output", default=False)
    tail = body[len(body) if json_bytes is None else json_bytes :]
    inputs, shared = _read_inputs(_listed(document, "inputs"), tail)
    return InferRequest(
        inputs=inputs,
        outputs=tuple(_read_wanted(each, binary) for each in _listed(document, "outputs")),
        binary=binary,
        id=identity,
        shared=shared,
        within_s=_timeout_s(parameters) if parameters else None,
        sequence=bool(parameters) and parameters.get("sequence_id", 0) not in (0, ""),
    )


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us < 2**63:
        raise BadInput(f"cannot read the request: timeout {timeout_us!r:.40} is no microseconds")
    return timeout_us / 1e6 or None


def _read_inputs(
    listed: Sequence[dict[str, Any]], tail: memoryview
) -> tuple[dict[str, Array], dict[str, SharedTensor]]:
    inputs: dict[str, Array] = {}
    shared: dict[str, SharedTensor] = {}
    at = 0
    for tensor in listed:
        name = tensor["name"]
        if name in inputs or name in shared:
            raise BadInput(f"cannot read input '{name}': given twice")
        shape, dtype = tensors.header(name, tensor)
        parameters = _parameters(tensor, f"input '{name}'")
        place = _place(parameters, f"input '{name}'") if parameters else None
        if place is not None:
            if "data" in tensor or "binary_data_size" in parameters:
                raise BadInput(f"cannot read input '{name}': both data and shared memory are given")
            shared[name] = SharedTensor(place, dtype, shape)
            continue
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
    return inputs, shared


def _read_wanted(tensor: dict[str, Any], binary: bool) -> Wanted:
    name = tensor["name"]
    parameters = _parameters(tensor, f"output '{name}'")
    if not parameters:
        return Wanted(name, binary)
    what = f"output '{name}'"
    classes = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes <= _MOST_CLASSES:
        raise BadInput(f"cannot give {what}: classification {classes!r:.40} is no count of classes")
    place = _place(parameters, what)
    if place is not None and classes:
        raise BadInput(f"cannot give {what}: classes do not go to shared memory")
    return Wanted(name, _flag(parameters, what, "binary_data", default=binary), classes, place)


def _place(parameters: dict[str, Any], what: str) -> Shared | None:
    """Where in shared memory, if anywhere; region and size are required together."""
    region = parameters.get("shared_memory_region")
    size = parameters.get("shared_memory_byte_size")
    if region is None and size is None:
        return None
    offset = parameters.get("shared_memory_offset", 0)
    numbers = [each for each in (offset, size) if type(each) is int and 0 <= each < 2**63]
    if not isinstance(region, str) or len(numbers) < 2:
        raise BadInput(
            f"cannot find {what} in shared memory: region {region!r:.40}, "
            f"byte_size {size!r:.40}, offset {offset!r:.40}"
        )
    return Shared(region, *numbers)


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


def _flag(parameters: dict[str, Any], what: str, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
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
