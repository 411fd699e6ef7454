"""Reads the requests of the Open Inference Protocol v2, in JSON and binary (no I/O).

What is read is checked for form; whether it fits a model is for the model to say.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from agent.errors import BadInput
from agent.protocol import oip_inputs, tensors
from agent.protocol.oip import InferRequest, Spec, Wanted
from agent.protocol.oip_inputs import Given

_MOST_CLASSES = 2**31
_MOST_TENSORS = 1024


def read_request(body: memoryview, *, json_bytes: int | None = None) -> InferRequest:
    """Read the body of an infer request; binary inputs share its memory.

    `json_bytes` is the length of the JSON where raw tensors follow it, else None.

    Raises:
        BadInput: not JSON, a field of the wrong type, or a tensor that is not what it says;
            the message names the input.
    """
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise BadInput(f"cannot split a body of {len(body)} bytes after {json_bytes} bytes")
    return filled(
        said(document(body[:json_bytes])), body[len(body) if json_bytes is None else json_bytes :]
    )


class Said(NamedTuple):
    """What the JSON of a request says."""

    tensors: tuple[Given, ...]
    outputs: tuple[Wanted, ...] = ()
    binary: bool = False
    id: str | None = None
    within_s: float | None = None
    sequence: bool = False


def document(text: bytes | memoryview) -> Any:
    """Read the JSON of a request, whatever it says.

    Raises:
        BadInput: it is none.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"cannot read the request as JSON: {error}") from error


def said(document: Any) -> Said:
    """What the JSON of a request says.

    Raises:
        BadInput: as read_request.
    """
    if not isinstance(document, dict):
        raise BadInput("cannot read the request: its JSON is no object")
    identity = document.get("id")
    if identity is not None and not isinstance(identity, str):
        raise BadInput(f"cannot read the request: id {identity!r:.40} is no string")
    inputs = oip_inputs.read(_listed(document, "inputs"))
    if "parameters" not in document and "outputs" not in document:
        return Said(inputs, id=identity)
    parameters = oip_inputs.parameters(document, "the request")
    binary = _flag(parameters, "the request", "binary_data_output", default=False)
    return Said(
        tensors=inputs,
        outputs=tuple([_read_wanted(each, binary) for each in _listed(document, "outputs")]),
        binary=binary,
        id=identity,
        within_s=_timeout_s(parameters),
        sequence=parameters.get("sequence_id", 0) not in (0, ""),
    )


def filled(said: Said, tail: memoryview) -> InferRequest:
    """What was said, with its data: those in the JSON, and those behind it in `tail`.

    Raises:
        BadInput: as read_request.
    """
    inputs, shared = oip_inputs.arrays(said.tensors, tail)
    return InferRequest(
        inputs, said.outputs, said.binary, said.id, shared, said.within_s, said.sequence
    )


def _timeout_s(parameters: dict[str, Any]) -> float | None:
    timeout_us = parameters.get("timeout", 0)
    if type(timeout_us) is not int or not 0 <= timeout_us < 2**63:
        raise BadInput(f"cannot read the request: timeout {timeout_us!r:.40} is no microseconds")
    return timeout_us / 1e6 or None


def _read_wanted(tensor: dict[str, Any], binary: bool) -> Wanted:
    name = tensor["name"]
    parameters = oip_inputs.parameters(tensor, f"output '{name}'")
    if not parameters:
        return Wanted(name, binary)
    what = f"output '{name}'"
    classes = parameters.get("classification", 0)
    if type(classes) is not int or not 0 <= classes <= _MOST_CLASSES:
        raise BadInput(f"cannot give {what}: classification {classes!r:.40} is no count of classes")
    place = oip_inputs.place_of(parameters, what)
    if place is not None and classes:
        raise BadInput(f"cannot give {what}: classes do not go to shared memory")
    return Wanted(name, _flag(parameters, what, "binary_data", default=binary), classes, place)


def _listed(document: dict[str, Any], field: str) -> list[dict[str, Any]]:
    listed = document.get(field)
    if listed is None and field == "outputs":
        return []
    if not isinstance(listed, list):
        raise BadInput(f"cannot read the request: {field} is no list of tensors")
    if len(listed) > _MOST_TENSORS:
        raise BadInput(f"cannot read {len(listed)} {field}: at most {_MOST_TENSORS}")
    for tensor in listed:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise BadInput(f"cannot read the request: one of {field} has no name")
    return listed


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
