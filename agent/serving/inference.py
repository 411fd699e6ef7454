"""One inference request: read it, run the live variant, write its outputs."""

import time
from collections.abc import Awaitable

from agent.errors import BadInput
from agent.protocol import oip
from agent.protocol.oip import InferRequest
from agent.serving.api import Answer, Answering, Match, Request
from agent.serving.meter import Times
from agent.serving.service import Service
from agent.serving.variant import Ran, Variant

_LENGTH = oip.HEADER_LENGTH.lower().encode()
_BINARY = oip.BINARY_TYPE.encode()


def infer(service: Service, request: Request, match: Match) -> Answering:
    """Answer at once where the model is quick, else when its thread has run it."""
    began_ns = time.perf_counter_ns()
    variant = service.slots.find(match["name"], match["version"])
    try:
        asked = _read(request, variant)
        names = _output_names(asked, variant)
        read_ns = time.perf_counter_ns()
        running = variant.infer(asked.inputs, names)
        if isinstance(running, Ran):
            return _written(asked, variant, running, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(time.perf_counter_ns() - began_ns)
        raise
    return _later(running, asked, variant, began_ns=began_ns, read_ns=read_ns)


async def _later(
    running: Awaitable[Ran], asked: InferRequest, variant: Variant, *, began_ns: int, read_ns: int
) -> Answer:
    try:
        ran = await running
        return _written(asked, variant, ran, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(time.perf_counter_ns() - began_ns)
        raise


def _read(request: Request, variant: Variant) -> InferRequest:
    text = request.headers.get(_LENGTH)
    if text is None:
        return oip.read_request(request.body)
    if not text.isdigit() or len(text) > 12:
        raise BadInput(f"cannot read {oip.HEADER_LENGTH} {text[:20]!r}: not a length")
    if int(text) == 0:
        return oip.read_raw(request.body, inputs=variant.model.inputs)
    return oip.read_request(request.body, json_bytes=int(text))


def _output_names(asked: InferRequest, variant: Variant) -> tuple[str, ...]:
    known = variant.model.output_names
    if not asked.outputs:
        return known
    names = tuple(wanted.name for wanted in asked.outputs)
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise BadInput(f"cannot give output '{name[:80]}': the model has {listed}")
    return names


def _written(
    asked: InferRequest, variant: Variant, ran: Ran, *, began_ns: int, read_ns: int
) -> Answer:
    binary = [wanted.binary for wanted in asked.outputs]
    names = [wanted.name for wanted in asked.outputs]
    if not names:
        names = list(variant.model.output_names)
        binary = [asked.binary] * len(names)
    head = {"model_name": variant.request.name, "model_version": str(variant.request.version)}
    if asked.id is not None:  # OIP: an id that was given must come back
        head["id"] = asked.id
    encoded = oip.write_response(head, list(zip(names, ran.arrays, binary, strict=True)))
    if encoded.json_bytes is None:
        answer = Answer(200, encoded.parts)
    else:
        length = (_LENGTH, str(encoded.json_bytes).encode())
        answer = Answer(200, encoded.parts, _BINARY, (length,))
    now_ns = time.perf_counter_ns()
    times = Times(
        read_ns - began_ns,
        ran.began_ns - read_ns,
        ran.ended_ns - ran.began_ns,
        now_ns - ran.ended_ns,
    )
    variant.meter.succeeded(times, at_ns=now_ns)
    return answer
