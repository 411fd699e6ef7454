"""Registers regions of system shared memory, tells what is registered, forgets them.

Specification: Triton's extension_shared_memory.md.
"""

import orjson

from agent.errors import BadInput
from agent.serving.api import Answer, Match, Request, as_json
from agent.serving.service import Service


def status(service: Service, _request: Request, match: Match) -> Answer:
    """One region, or all of them."""
    return as_json(service.regions.status(match["region"]))


def register(service: Service, request: Request, match: Match) -> Answer:
    """Map what a client has made."""
    regions, name = service.regions, match["region"]
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"cannot register '{name[:80]}': not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"cannot register '{name[:80]}': its JSON is no object")
    key, byte_size = document.get("key"), document.get("byte_size")
    offset = document.get("offset", 0)
    if not isinstance(key, str) or type(byte_size) is not int or type(offset) is not int:
        raise BadInput(
            f"cannot register '{name[:80]}': key {key!r:.40}, byte_size {byte_size!r:.40}, "
            f"offset {offset!r:.40}"
        )
    if max(byte_size, offset) >= 2**62:
        raise BadInput(f"cannot register '{name[:80]}': {byte_size} bytes from {offset}")
    regions.register(name, key=key, offset=offset, byte_size=byte_size)
    return as_json({})


def unregister(service: Service, _request: Request, match: Match) -> Answer:
    """Forget one region, or all of them, and what is bound to them."""
    for region in service.regions.unregister(match["region"]):
        for variant in service.slots:
            variant.known.forget(region)
    return as_json({})
