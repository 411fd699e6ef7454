"""One small request to a model, as a command brings it: the public protocol's JSON, bounded."""

import json
from typing import Any

from agent.errors import BadInput, Refused
from agent.host.client import Client
from agent.protocol.commands import MAX_BYTES, Infer


async def answer(client: Client, order: Infer) -> dict[str, Any]:
    """What the server answers, as a document of the Open Inference Protocol.

    Raises:
        BadInput: the request is wrong, nothing of that name is live, or the answer is no JSON.
        Refused: the answer is too long for a reply.
        Unavailable: the server does not answer in the time that the order gives.
    """
    request = json.dumps(order.request).encode()
    found = await client.infer(order.model, order.version, request, timeout_s=order.timeout_s)
    if len(found) > MAX_BYTES:
        raise Refused(
            f"cannot send an answer of {len(found)} bytes: at most {MAX_BYTES}; "
            "name fewer outputs, or ask the device itself"
        )
    try:
        return dict(json.loads(found))
    except ValueError as error:
        raise BadInput("cannot send an answer with binary tensors: ask for JSON") from error
