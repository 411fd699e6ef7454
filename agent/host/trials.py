"""Trials, each in a process of its own: the one ruler, at the priority that serving has.

They are asked for by the worker, which may start nothing, and by whoever admits a variant.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from pydantic import TypeAdapter

from agent.host import children, talking
from agent.host.breaks import Breaks, Outlasted, unless
from compression import errors
from compression.findings import Measurement
from compression.job import KernelCosts, KernelJob, MemoryJob, MemoryPeaks, TrialJob
from compression.stream import Failed, KernelRequest, MemoryRequest, TrialAnswer, TrialRequest

GRACE_S = 60.0
"""Beyond the time that a child was given: import, load, and one run of a slow model."""
Request = TrialRequest | KernelRequest | MemoryRequest
_Found = Measurement | KernelCosts | MemoryPeaks
_FROM_TRIAL: TypeAdapter[_Found | Failed] = TypeAdapter(_Found | Failed)
_LIMITS = children.Limits(first_to_die=True)


async def trial(job: TrialJob) -> Measurement:
    """Measure one candidate.

    Raises:
        CannotRun: it died or took too long; how is in the message.
        BadModel, BadInputs: as the trial says.
        Unavailable: no process can be started.
    """
    answer = await _run(job)
    if not isinstance(answer, Measurement):
        raise errors.CompressionError("cannot understand the trial: it measured something else")
    return answer


async def undisturbed(request: Request, breaks: Breaks | None) -> TrialAnswer:
    """Answer by a trial that no break disturbs: what was measured in one means nothing.

    Raises:
        Unavailable: no process can be started.
    """
    while breaks is not None:
        await breaks.ended()
        with contextlib.suppress(Outlasted):
            return await unless(breaks.begun(), _answer(request, breaks))
    return await _answer(request)


async def _run(job: TrialJob | KernelJob | MemoryJob, breaks: Breaks | None = None) -> _Found:
    many = len(job.ways) if isinstance(job, MemoryJob) else 1
    limit_s = many * job.seconds * 3 + GRACE_S
    async with talking.running("compression.trial", _LIMITS) as child, _among(breaks, child):
        await child.tell(job.to_json())
        try:
            async with asyncio.timeout(limit_s):
                line = await child.line()
                how = "" if line else await child.death()
        except TimeoutError:
            raise errors.CannotRun(f"cannot run here: no result after {limit_s:.0f} s") from None
        if not line:
            raise talking.with_log(errors.CannotRun(f"cannot run here: {how}"), child)
        answer = _FROM_TRIAL.validate_json(line)
    if isinstance(answer, Failed):
        raise errors.from_wire(answer.kind, answer.message)
    return answer


async def _answer(request: Request, breaks: Breaks | None = None) -> TrialAnswer:
    try:
        found = await _run(request.job, breaks)
        if isinstance(found, MemoryPeaks):
            return TrialAnswer(memory=found)
        if isinstance(found, KernelCosts):
            return TrialAnswer(kernels=found)
        return TrialAnswer(measurement=found)
    except errors.CompressionError as error:
        return TrialAnswer(failed=Failed(**errors.to_wire(error)))


@contextlib.asynccontextmanager
async def _among(breaks: Breaks | None, child: talking.Child) -> AsyncIterator[None]:
    """Count a trial among the work's own, where anybody asks whose time it takes."""
    with breaks.counting(child) if breaks else contextlib.nullcontext():
        yield
