"""One inference request: read it, run the live variant, write its outputs."""

from collections.abc import Awaitable
from time import perf_counter_ns

from agent.protocol.oip import InferRequest
from agent.serving import rote, sharing, spoken
from agent.serving.api import Answer, Answering, Match, Request
from agent.serving.faults import NotOffered
from agent.serving.questions import Question
from agent.serving.runs import Ran
from agent.serving.service import Service
from agent.serving.variant import Variant


def infer(service: Service, request: Request, match: Match) -> Answering:
    """Answer at once where the model is quick, else when its thread has run it."""
    began_ns = perf_counter_ns()
    variant = service.slots.find(*match.group("name", "version"))
    try:
        heard = spoken.hear(request.headers, request.body) if variant.at_once(0) else None
        if heard is None:
            question, asked = variant.questions.read(request.headers, request.body)
        elif (parts := spoken.answered(variant, heard, began_ns)) is not None:
            return Answer(200, parts)
        else:
            question, asked = variant.questions.told(heard.whole())
        read_ns = perf_counter_ns()
        if variant.gate is None:
            running = _run(service, variant, question, asked)
            if isinstance(running, Ran):
                answer = _written(question, variant, running, began_ns=began_ns, read_ns=read_ns)
                if heard is not None:
                    spoken.learn(variant, heard, question, running.arrays, answer.parts)
                    return answer
                known = rote.learn(service, variant, question, asked, running.arrays)
                return answer if known is None else answer._replace(rote=known)
            return _later(running, question, variant, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(perf_counter_ns() - began_ns)
        raise
    return _behind(service, variant, request, match, began_ns=began_ns, within_s=asked.within_s)


async def _later(
    running: Awaitable[Ran], question: Question, variant: Variant, *, began_ns: int, read_ns: int
) -> Answer:
    try:
        ran = await running
        return _written(question, variant, ran, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(perf_counter_ns() - began_ns)
        raise


async def _behind(
    service: Service,
    variant: Variant,
    request: Request,
    match: Match,
    *,
    began_ns: int,
    within_s: float | None,
) -> Answer:
    """Wait until the variant has been replaced, then ask the other one."""
    read_ns = perf_counter_ns()
    while variant.gate is not None:
        await variant.gate.passed(within_s=within_s)
        variant = service.slots.find(*match.group("name", "version"))
    try:
        question, asked = variant.questions.read(request.headers, request.body)
        running = _run(service, variant, question, asked)
        ran = running if isinstance(running, Ran) else await running
        return _written(question, variant, ran, began_ns=began_ns, read_ns=read_ns)
    except BaseException:
        variant.meter.failed(perf_counter_ns() - began_ns)
        raise


def _run(
    service: Service, variant: Variant, question: Question, asked: InferRequest
) -> Ran | Awaitable[Ran]:
    if asked.sequence:
        raise NotOffered("cannot keep a sequence: each request stands for itself here")
    if asked.shared or any(wanted.shared is not None for wanted in asked.outputs):
        return sharing.run(service.regions, variant, asked, question.names)
    return variant.infer(asked.inputs, question.names, within_s=asked.within_s, fits=True)


def _written(
    question: Question, variant: Variant, ran: Ran, *, began_ns: int, read_ns: int
) -> Answer:
    arrays, ran_from_ns, ran_to_ns = ran
    head = {"model_name": variant.request.name, "model_version": variant.version}
    answer = Answer(200, *question.write(head, arrays))
    now_ns = perf_counter_ns()
    variant.meter.succeeded(
        (read_ns - began_ns, ran_from_ns - read_ns, ran_to_ns - ran_from_ns, now_ns - ran_to_ns),
        at_ns=now_ns,
    )
    return answer
