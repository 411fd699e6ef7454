"""One inference request: read it, run the live variant, write its outputs."""

import time
from collections.abc import Awaitable, Sequence

from agent.errors import BadInput
from agent.protocol import oip, oip_requests
from agent.protocol.oip import InferRequest, Output, Wanted
from agent.protocol.tensors import Array
from agent.serving import classification, sharing
from agent.serving.api import Answer, Answering, Match, Request
from agent.serving.faults import NotOffered
from agent.serving.meter import Times
from agent.serving.runs import Ran
from agent.serving.service import Service
from agent.serving.variant import Variant

_LENGTH = oip.HEADER_LENGTH.lower().encode()
_BINARY = oip.BINARY_TYPE.encode()


def infer(service: Service, request: Request, match: Match) -> Answering:
    """Answer at once where the model is quick, else when its thread has run it."""
    began_ns = time.perf_counter_ns()
    variant = service.slots.find(match["name"], match["version"])
    try:
        asked = _read(request, variant)
        read_ns = time.perf_counter_ns()
        if variant.gate is None:
            running = _run(service, variant, asked)
            if isinstance(running, Ran):
                return _written(asked, variant, running, began_ns=began_ns, read_ns=read_ns)
            return _later(running, asked, variant, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(time.perf_counter_ns() - began_ns)
        raise
    return _behind(service, variant, asked, match, began_ns=began_ns)


async def _later(
    running: Awaitable[Ran], asked: InferRequest, variant: Variant, *, began_ns: int, read_ns: int
) -> Answer:
    try:
        ran = await running
        return _written(asked, variant, ran, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(time.perf_counter_ns() - began_ns)
        raise


async def _behind(
    service: Service, variant: Variant, asked: InferRequest, match: Match, *, began_ns: int
) -> Answer:
    """Wait until the variant has been replaced, then run the other one."""
    read_ns = time.perf_counter_ns()
    while variant.gate is not None:
        await variant.gate.passed(within_s=asked.within_s)
        variant = service.slots.find(match["name"], match["version"])
    try:
        running = _run(service, variant, asked)
        ran = running if isinstance(running, Ran) else await running
        return _written(asked, variant, ran, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(time.perf_counter_ns() - began_ns)
        raise


def _read(request: Request, variant: Variant) -> InferRequest:
    text = request.headers.get(_LENGTH)
    if text is None:
        return oip_requests.read_request(request.body)
    if not text.isdigit() or len(text) > 12:
        raise BadInput(f"cannot read {oip.HEADER_LENGTH} {text[:20]!r}: not a length")
    if int(text) == 0:
        return oip_requests.read_raw(request.body, inputs=variant.model.inputs)
    return oip_requests.read_request(request.body, json_bytes=int(text))


def _run(service: Service, variant: Variant, asked: InferRequest) -> Ran | Awaitable[Ran]:
    if asked.sequence:
        raise NotOffered("cannot keep a sequence: each request stands for itself here")
    names = _output_names(asked.outputs, variant.model.output_names)
    if asked.shared or any(wanted.shared is not None for wanted in asked.outputs):
        return sharing.run(service.regions, variant, asked, names)
    return variant.infer(asked.inputs, names, within_s=asked.within_s)


def _output_names(wanted: Sequence[Wanted], known: Sequence[str]) -> Sequence[str]:
    if not wanted:
        return known
    names = [each.name for each in wanted]
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise BadInput(f"cannot give output '{name[:80]}': the model has {listed}")
    if len(set(names)) < len(names):
        raise BadInput(f"cannot give an output twice: {', '.join(names)[:80]}")
    return names


def _written(
    asked: InferRequest, variant: Variant, ran: Ran, *, began_ns: int, read_ns: int
) -> Answer:
    wanted = asked.outputs or [Wanted(name, asked.binary) for name in variant.model.output_names]
    outputs = [_output(each, array) for each, array in zip(wanted, ran.arrays, strict=True)]
    head = {"model_name": variant.request.name, "model_version": str(variant.request.version)}
    if asked.id is not None:  # OIP: an id that was given must come back
        head["id"] = asked.id
    encoded = oip.write_response(head, outputs)
    if encoded.json_bytes is None:
        answer = Answer(200, encoded.parts)
    else:
        length = (_LENGTH, str(encoded.json_bytes).encode())
        answer = Answer(200, encoded.parts, _BINARY, (length,))
    queue_ns, run_ns = ran.began_ns - read_ns, ran.ended_ns - ran.began_ns
    now_ns = time.perf_counter_ns()
    times = Times(read_ns - began_ns, queue_ns, run_ns, now_ns - ran.ended_ns)
    variant.meter.succeeded(times, at_ns=now_ns)
    return answer


def _output(wanted: Wanted, array: Array) -> Output:
    if wanted.shared is not None:
        return Output(wanted.name, array, shared=wanted.shared)
    if wanted.classes:
        array = classification.highest(wanted.name, array, wanted.classes)
    return Output(wanted.name, array, wanted.binary)
