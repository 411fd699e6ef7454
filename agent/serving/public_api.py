"""What anybody may ask: health, metadata, inference, and the extensions of the protocol.

Specification: KServe "Open Inference Protocol" (inference_rest.md); Triton's extension_*.md.
"""

from typing import Any

from agent.protocol import tensors
from agent.protocol.oip import Spec
from agent.serving import inference, openapi, repository, sharing_api, statistics
from agent.serving.api import Answer, Match, Request, Routes, as_json, route
from agent.serving.faults import NotOffered
from agent.serving.service import Service
from agent.version import __version__

MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
_EXTENSIONS = (
    "binary_tensor_data", "classification", "model_configuration", "model_repository",
    "parameters", "statistics",
)  # fmt: skip


def _live(_service: Service, _request: Request, _match: Match) -> Answer:
    return as_json({"live": True})


def _ready(service: Service, _request: Request, _match: Match) -> Answer:
    # Nothing is public before all models are loaded: only one that is being replaced is not.
    ready = all(variant.gate is None for variant in service.slots)
    return as_json({"ready": ready}, status=200 if ready else 503)


def _server(service: Service, _request: Request, _match: Match) -> Answer:
    allowed = {"model_repository(unload_dependents)": service.model_control}
    allowed |= {"system_shared_memory": service.shared is not None}
    extensions = [*_EXTENSIONS, *(name for name, offered in allowed.items() if offered)]
    return as_json({"name": "trimtab", "version": __version__, "extensions": extensions})


def _metadata(service: Service, _request: Request, match: Match) -> Answer:
    variant = service.slots.find(match["name"], match["version"])
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


def _model_ready(service: Service, _request: Request, match: Match) -> Answer:
    variant = service.slots.find(match["name"], match["version"])
    ready = variant.gate is None
    document = {"name": variant.request.name, "ready": ready}
    return as_json(document, status=200 if ready else 503)


def _config(service: Service, _request: Request, match: Match) -> Answer:
    """What Triton's model_configuration extension tells, as far as it means something here."""
    variant = service.slots.find(match["name"], match["version"])
    return as_json(
        {
            "name": variant.request.name,
            "platform": "onnxruntime_onnx",
            "backend": "onnxruntime",
            "max_batch_size": 0,  # the model's own shapes hold, batch and all
            "input": [_configured(spec) for spec in variant.model.inputs],
            "output": [_configured(spec) for spec in variant.model.outputs],
        }
    )


def _configured(spec: Spec) -> dict[str, Any]:
    kind = tensors.NAMES[spec.dtype]
    data_type = "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}"
    return {"name": spec.name, "data_type": data_type, "dims": spec.shape}


def _not_offered(_service: Service, request: Request, _match: Match) -> Answer:
    raise NotOffered(f"cannot {request.method} {request.path[:80]}: not offered here")


def _openapi(_service: Service, _request: Request, _match: Match) -> Answer:
    return as_json(openapi.document())


_SHARED = "/v2/systemsharedmemory"
_REGION = _SHARED + r"(?:/region/(?P<region>[^/]+))?"
_ABSENT = r"/v2(?:/models/[^/]+)?/(?:trace/setting|logging|cudasharedmemory(?:/.*)?)"

ROUTES = Routes(
    route("POST", MODEL + "/infer", inference.infer),
    route("GET", "/v2/health/live", _live),
    route("GET", "/v2/health/ready", _ready),
    route("GET", MODEL + "/ready", _model_ready),
    route("GET", "/v2/models/stats", statistics.all_models),
    route("GET", MODEL + "/stats", statistics.one),
    route("GET", MODEL + "/config", _config),
    route("GET", MODEL, _metadata),
    route("POST", "/v2/repository/index", repository.index),
    route("POST", "/v2/repository/models/(?P<name>[^/]+)/load", repository.load),
    route("POST", "/v2/repository/models/(?P<name>[^/]+)/unload", repository.unload),
    route("GET", _REGION + "/status", sharing_api.status),
    route("POST", _SHARED + "/region/(?P<region>[^/]+)/register", sharing_api.register),
    route("POST", _REGION + "/unregister", sharing_api.unregister),
    route("GET", "/v2", _server),
    route("GET", r"/openapi\.json", _openapi),
    route("GET", _ABSENT, _not_offered),
    route("POST", _ABSENT, _not_offered),
)
"""The first that matches answers."""
