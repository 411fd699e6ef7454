"""The v2 protocol without a transport: a request in, status, headers and body parts out.

Specification: KServe "Open Inference Protocol" (inference_rest.md); the repository index is
Triton's extension_model_repository.md. Errors are `{"error": "cannot ..."}`.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from agent.errors import BadInput
from agent.protocol import oip, tensors
from agent.protocol.oip import InferRequest, Spec
from agent.protocol.private import ERROR_STATUS
from agent.serving.slot import NotFound, Slots
from agent.serving.variant import Variant
from agent.version import __version__

_LOG = logging.getLogger(__name__)
_LENGTH = oip.HEADER_LENGTH.lower().encode()
_STATUS: dict[type, int] = {NotFound: 404, **ERROR_STATUS}
_MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"


class Request(NamedTuple):
    """One HTTP request; header names are in lower case."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: memoryview


class Answer(NamedTuple):
    """What goes out; the transport adds the length."""

    status: int
    parts: Sequence[bytes | memoryview]
    content_type: bytes = oip.JSON_TYPE.encode()
    headers: tuple[tuple[bytes, bytes], ...] = ()


Handler = Callable[[Slots, Request, "re.Match[str]"], Awaitable[Answer]]


class Route(NamedTuple):
    """Which handler answers which paths."""

    method: str
    path: re.Pattern[str]
    handler: Handler


def route(method: str, path: str, handler: Handler) -> Route:
    """Make a route; `path` is a regular expression for the whole path."""
    return Route(method, re.compile(path + r"/?\Z"), handler)


def as_json(document: Any, *, status: int = 200) -> Answer:
    """Answer with a JSON document."""
    return Answer(status, [orjson.dumps(document)])


def failure(error: Exception) -> Answer:
    """Answer with an error under the status of its kind."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return as_json({"error": str(error)}, status=_STATUS[kind])
    _LOG.error("cannot answer a request", exc_info=error)
    return as_json({"error": f"cannot answer: {type(error).__name__}: {error}"}, status=500)


async def answer(routes: Sequence[Route], slots: Slots, request: Request) -> Answer:
    """Answer one request by the first route that matches; never raises."""
    method = "GET" if request.method == "HEAD" else request.method
    others = []
    try:
        for allowed, path, handler in routes:
            match = path.match(request.path)
            if match and allowed == method:
                return await handler(slots, request, match)
            if match:
                others.append(allowed)
    except Exception as error:  # every failure becomes an answer
        return failure(error)
    if others:
        text = f"cannot {request.method} {request.path[:80]}: use {others[0]}"
        refused = as_json({"error": text}, status=405)
        return refused._replace(headers=((b"allow", ", ".join(others).encode()),))
    return as_json({"error": f"cannot find {request.path[:80]}"}, status=404)


async def _live(_slots: Slots, _request: Request, _match: "re.Match[str]") -> Answer:
    return as_json({"live": True})


async def _ready(_slots: Slots, _request: Request, _match: "re.Match[str]") -> Answer:
    # Nothing is public before all models are loaded: whoever can ask finds it ready.
    return as_json({"ready": True})


async def _server(_slots: Slots, _request: Request, _match: "re.Match[str]") -> Answer:
    return as_json(
        {"name": "trimtab", "version": __version__, "extensions": ["binary_tensor_data"]}
    )


async def _metadata(slots: Slots, _request: Request, match: "re.Match[str]") -> Answer:
    variant = slots.find(match["name"], match["version"])
    return as_json(
        {
            "name": variant.request.name,
            "versions": [str(variant.request.version)],
            "platform": "onnx_onnxv1",
            "inputs": [_described(spec) for spec in variant.model.inputs],
            "outputs": [_described(spec) for spec in variant.model.outputs],
        }
    )


def _described(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": tensors.NAMES[spec.dtype], "shape": spec.shape}


async def _model_ready(slots: Slots, _request: Request, match: "re.Match[str]") -> Answer:
    variant = slots.find(match["name"], match["version"])
    return as_json({"name": variant.request.name, "ready": True})


async def _index(slots: Slots, _request: Request, _match: "re.Match[str]") -> Answer:
    return as_json(
        [
            {
                "name": variant.request.name,
                "version": str(variant.request.version),
                "state": "READY",
                "reason": "",
            }
            for variant in slots
        ]
    )


async def _infer(slots: Slots, request: Request, match: "re.Match[str]") -> Answer:
    variant = slots.find(match["name"], match["version"])
    asked = _read(request, variant)
    outputs = asked.outputs or [(name, asked.binary) for name in variant.model.output_names]
    names = [name for name, _ in outputs]
    if unknown := sorted(set(names) - set(variant.model.output_names)):
        known = ", ".join(variant.model.output_names)
        raise BadInput(f"cannot give output '{unknown[0][:80]}': the model has {known}")
    arrays = await variant.infer(asked.inputs, names)
    head = {"model_name": variant.request.name, "model_version": str(variant.request.version)}
    if asked.id is not None:  # OIP: an id that was given must come back
        head["id"] = asked.id
    encoded = oip.write_response(
        head,
        [(name, array, binary) for (name, binary), array in zip(outputs, arrays, strict=True)],
    )
    if encoded.json_bytes is None:
        return Answer(200, encoded.parts)
    length = (_LENGTH, str(encoded.json_bytes).encode())
    return Answer(200, encoded.parts, oip.BINARY_TYPE.encode(), (length,))


def _read(request: Request, variant: Variant) -> InferRequest:
    text = request.headers.get(_LENGTH)
    if text is None:
        return oip.read_request(request.body)
    if not text.isdigit() or len(text) > 12:
        raise BadInput(f"cannot read {oip.HEADER_LENGTH} {text[:20]!r}: not a length")
    if int(text) == 0:
        return oip.read_raw(request.body, inputs=variant.model.inputs)
    return oip.read_request(request.body, json_bytes=int(text))


PUBLIC = (
    route("POST", _MODEL + "/infer", _infer),
    route("GET", "/v2/health/live", _live),
    route("GET", "/v2/health/ready", _ready),
    route("GET", _MODEL + "/ready", _model_ready),
    route("GET", _MODEL, _metadata),
    route("POST", "/v2/repository/index", _index),
    route("GET", "/v2", _server),
)
"""What anybody may ask; the first that matches answers."""
