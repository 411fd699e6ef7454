"""What is served, and what could be: listed, unloaded and loaded again by clients.

Specification: Triton's extension_model_repository.md. Which files there are is for whoever runs
the server to say: clients can neither bring their own nor configure them.
"""

from typing import Any

import orjson

from agent.errors import BadInput
from agent.protocol.private import LoadRequest
from agent.serving.api import Answer, Match, Request, as_json
from agent.serving.faults import NotOffered
from agent.serving.service import Service


def index(service: Service, request: Request, _match: Match) -> Answer:
    """List what is live, and unless `ready` is asked for, what a client has unloaded."""
    ready = _document(request).get("ready", False)
    if not isinstance(ready, bool):
        raise BadInput(f"cannot list the models: ready {ready!r:.40} is not true or false")
    listed = [_entry(variant.request, "READY") for variant in service.slots]
    if not ready:
        listed += [
            _entry(resting, "UNAVAILABLE", reason="unloaded by a client")
            for resting in service.slots.resting.values()
        ]
    return as_json(listed)


async def load(service: Service, request: Request, match: Match) -> Answer:
    """Load what a client unloaded, or load anew what is live."""
    service.allow_model_control()
    for name in _parameters(request):
        raise NotOffered(f"cannot load '{match['name'][:80]}' with {name[:80]!r}: only as it is")
    await service.slots.reload(match["name"])
    return as_json({})


async def unload(service: Service, request: Request, match: Match) -> Answer:
    """Take a model out of service. Nothing depends on another one here."""
    service.allow_model_control()
    dependents = _parameters(request).get("unload_dependents", False)
    if not isinstance(dependents, bool):
        raise BadInput(f"cannot unload: unload_dependents {dependents!r:.40} is not true or false")
    await service.slots.unload(match["name"], rest=True)
    return as_json({})


def _entry(request: LoadRequest, state: str, *, reason: str = "") -> dict[str, Any]:
    version = str(request.version)
    return {"name": request.name, "version": version, "state": state, "reason": reason}


def _document(request: Request) -> dict[str, Any]:
    """The body, which may be empty."""
    if not request.body:
        return {}
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"cannot read the request as JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput("cannot read the request: its JSON is no object")
    return document


def _parameters(request: Request) -> dict[str, Any]:
    parameters = _document(request).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadInput("cannot read the request: parameters is no object")
    return parameters
