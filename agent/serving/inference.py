"""One inference request: read it, run the live variant, write its outputs."""

from collections.abc import Awaitable
from time import perf_counter_ns
from typing import NamedTuple

from agent.protocol.oip import InferRequest
from agent.serving import rote, sharing, spoken
from agent.serving.api import Answer, Answering, Match, Request
from agent.serving.faults import NotOffered
from agent.serving.question import Question
from agent.serving.runs import Ran
from agent.serving.service import Service
from agent.serving.spoken import Heard
from agent.serving.variant import Variant


class _Turn(NamedTuple):
    """A request that was read, on its way through a variant."""

    service: Service
    variant: Variant
    question: Question
    asked: InferRequest
    began_ns: int
    read_ns: int
    heard: Heard | None = None


def infer(service: Service, request: Request, match: Match) -> Answering:
    """Answer at once where the model is quick, else when its thread has run it."""
    began_ns = perf_counter_ns()
    variant = service.slots.find(*match.group("name", "version"))
    try:
        heard = spoken.hear(request.headers, request.body) if variant.ready(0) else None
        if heard is None:
            question, asked = variant.questions.read(request.headers, request.body)
        elif (answer := spoken.answered(variant, heard, began_ns)) is not None:
            return answer
        else:
            question, asked = variant.questions.told(heard.whole())
        turn = _Turn(service, variant, question, asked, began_ns, perf_counter_ns(), heard)
        if variant.gate is None:
            running = _run(turn)
            return _written(turn, running) if isinstance(running, Ran) else _later(turn, running)
    except BaseException:
        variant.meter.failed(perf_counter_ns() - began_ns)
        raise
    return _behind(turn, request, match)


async def _later(turn: _Turn, running: Awaitable[Ran]) -> Answer:
    try:
        return _written(turn, await running)
    except BaseException:
        turn.variant.meter.failed(perf_counter_ns() - turn.began_ns)
        raise


async def _behind(turn: _Turn, request: Request, match: Match) -> Answer:
    """Wait until the variant has been replaced, then ask the other one."""
    service, variant = turn.service, turn.variant
    while variant.gate is not None:
        await variant.gate.passed(within_s=turn.asked.within_s)
        variant = service.slots.find(*match.group("name", "version"))
    try:
        question, asked = variant.questions.read(request.headers, request.body)
        turn = turn._replace(variant=variant, question=question, asked=asked, heard=None)
        running = _run(turn)
        return _written(turn, running if isinstance(running, Ran) else await running)
    except BaseException:
        variant.meter.failed(perf_counter_ns() - turn.began_ns)
        raise


def _run(turn: _Turn) -> Ran | Awaitable[Ran]:
    asked, variant, names = turn.asked, turn.variant, turn.question.names
    if asked.sequence:
        raise NotOffered("cannot keep a sequence: each request stands for itself here")
    if asked.shared or any(wanted.shared is not None for wanted in asked.outputs):
        return sharing.run(turn.service.regions, variant, asked, names)
    return variant.infer(asked.inputs, names, within_s=asked.within_s, fits=True)


def _written(turn: _Turn, ran: Ran) -> Answer:
    variant, question = turn.variant, turn.question
    arrays, from_ns, to_ns = ran
    head = {"model_name": variant.request.name, "model_version": variant.version}
    answer = Answer(200, *question.write(head, arrays))
    now_ns = perf_counter_ns()
    times = (turn.read_ns - turn.began_ns, from_ns - turn.read_ns, to_ns - from_ns, now_ns - to_ns)
    variant.meter.succeeded(times, at_ns=now_ns)
    if turn.heard is not None:
        spoken.learn(variant, turn.heard, question, arrays, answer.parts)
        return answer
    return answer._replace(rote=rote.learn(turn.service, variant, question, turn.asked, arrays))
