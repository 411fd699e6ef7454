"""What anybody may ask: health, metadata, inference, and the extensions of the protocol.

Specification: KServe "Open Inference Protocol" (inference_rest.md); Triton's extension_*.md.
"""

from typing import Any

from agent.protocol import tensors
from agent.protocol.oip import Spec
from agent.serving import inference
from agent.serving.api import Answer, Match, Request, Routes, as_json, route
from agent.serving.service import Service
from agent.version import __version__

MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"


def _live(_service: Service, _request: Request, _match: Match) -> Answer:
    return as_json({"live": True})


def _ready(_service: Service, _request: Request, _match: Match) -> Answer:
    # Nothing is public before all models are loaded: whoever can ask finds it ready.
    return as_json({"ready": True})


def _server(_service: Service, _request: Request, _match: Match) -> Answer:
    return as_json(
        {"name": "trimtab", "version": __version__, "extensions": ["binary_tensor_data"]}
    )


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
    return as_json({"name": variant.request.name, "ready": True})


def _index(service: Service, _request: Request, _match: Match) -> Answer:
    return as_json(
        [
            {
                "name": variant.request.name,
                "version": str(variant.request.version),
                "state": "READY",
                "reason": "",
            }
            for variant in service.slots
        ]
    )


ROUTES = Routes(
    route("POST", MODEL + "/infer", inference.infer),
    route("GET", "/v2/health/live", _live),
    route("GET", "/v2/health/ready", _ready),
    route("GET", MODEL + "/ready", _model_ready),
    route("GET", MODEL, _metadata),
    route("POST", "/v2/repository/index", _index),
    route("GET", "/v2", _server),
)
"""The first that matches answers."""
