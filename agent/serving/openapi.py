"""The server's HTTP interface as an OpenAPI 3.1 document; docs/openapi.json is a copy of it.

The protocol's own description is open_inference_rest.yaml; this one has the extensions too, and
what this server answers.
"""

import json
import sys

from agent.serving.schemas import (
    CONFIG,
    COUNT,
    EMPTY,
    FLAG,
    METADATA,
    PARAMETERS,
    REGISTRATION,
    SCHEMAS,
    SERVER,
    STATISTICS,
    TEXT,
    Json,
    record,
    rows,
    schema,
)
from agent.version import __version__

_LENGTH = "Inference-Header-Content-Length"


def _body(answer: Json, *, required: bool, binary: bool = False) -> Json:
    content: Json = {"application/json": {"schema": answer}}
    if binary:
        content["application/octet-stream"] = {}
    return {"required": required, "content": content}


def _operation(
    summary: str, answer: Json, *, body: Json | None = None, binary: bool = False
) -> Json:
    content: Json = {"application/json": {"schema": answer}}
    if binary:
        content["application/octet-stream"] = {}
    failed = {"application/json": {"schema": schema("Error")}}
    operation: Json = {
        "summary": summary,
        "responses": {
            "200": {"description": "done", "content": content},
            "default": {"description": "why not", "content": failed},
        },
    }
    return operation | ({"requestBody": body} if body else {})


_INFER = _operation(
    "Run a model. Tensors as JSON, or behind it in binary; 0 as the JSON's length: the body is the "
    "only input",
    schema("InferResponse"),
    body=_body(schema("InferRequest"), required=True, binary=True),
    binary=True,
)
_INFER["parameters"] = [
    {"name": _LENGTH, "in": "header", "required": False, "schema": COUNT}
]  # fmt: skip
_READY = _operation("Whether requests are answered at once", record({"ready": FLAG}))
_MODEL_READY = _operation("The same of one model", record({"name": TEXT, "ready": FLAG}))
for _each in (_READY, _MODEL_READY):
    _each["responses"]["503"] = {"description": "a model is being replaced"}

_OF_MODELS: dict[str, tuple[str, Json]] = {
    "": ("get", _operation("What a model takes and gives", METADATA)),
    "/config": ("get", _operation("The same in Triton's words", CONFIG)),
    "/ready": ("get", _MODEL_READY),
    "/stats": ("get", _operation("What it has done", STATISTICS)),
    "/infer": ("post", _INFER),
}
_ALONE: dict[str, tuple[str, Json]] = {
    "/v2": ("get", _operation("What the server is and offers", SERVER)),
    "/v2/health/live": ("get", _operation("Whether it answers", record({"live": FLAG}))),
    "/v2/health/ready": ("get", _READY),
    "/v2/models/stats": ("get", _operation("What all models have done", STATISTICS)),
    "/v2/repository/index": (
        "post",
        _operation(
            "What is served, and what a client has unloaded",
            rows(schema("IndexEntry")),
            body=_body({"type": "object", "properties": {"ready": FLAG}}, required=False),
        ),
    ),
    "/v2/repository/models/{name}/load": (
        "post",
        _operation("Load it again", EMPTY, body=_body(PARAMETERS, required=False)),
    ),
    "/v2/repository/models/{name}/unload": (
        "post",
        _operation("Take it out of service", EMPTY, body=_body(PARAMETERS, required=False)),
    ),
    "/v2/systemsharedmemory/status": (
        "get",
        _operation("All registered regions", rows(schema("Region"))),
    ),
    "/v2/systemsharedmemory/region/{region}/status": (
        "get",
        _operation("One of them", rows(schema("Region"))),
    ),
    "/v2/systemsharedmemory/region/{region}/register": (
        "post",
        _operation("Use what a client has made", EMPTY, body=_body(REGISTRATION, required=True)),
    ),
    "/v2/systemsharedmemory/unregister": ("post", _operation("Forget all regions", EMPTY)),
    "/v2/systemsharedmemory/region/{region}/unregister": (
        "post",
        _operation("Forget one", EMPTY),
    ),
    "/openapi.json": ("get", _operation("This document", EMPTY)),
}


def document() -> Json:
    """Make the whole document."""
    table = dict(_ALONE)
    for path, entry in _OF_MODELS.items():
        table["/v2/models/{name}" + path] = entry
        table["/v2/models/{name}/versions/{version}" + path] = entry
    paths: Json = {}
    for path, (method, operation) in table.items():
        named = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        given = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in named]
        parameters = [*given, *operation.get("parameters", [])]
        paths[path] = {method: {**operation, **({"parameters": parameters} if parameters else {})}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trimtab",
            "version": __version__,
            "description": "Open Inference Protocol v2 (KServe) with Triton's extensions",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1) + "\n")
