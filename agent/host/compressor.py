"""The parent's side of a compression job: runs the worker, and every trial that it asks for.

The worker runs at idle priority and may not start anything, so the trials are children of
this process, at the priority that serving has.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.host import children, talking
from agent.host.breaks import Breaks, Outlasted, obeyed, unless
from compression import errors
from compression.findings import Ladder, Measurement
from compression.job import CompressJob, KernelCosts, KernelJob, MemoryJob, MemoryPeaks, TrialJob
from compression.stream import (
    Done,
    Failed,
    FromWorker,
    KernelRequest,
    MemoryRequest,
    Progress,
    TrialAnswer,
    TrialRequest,
    Tried,
)
from compression.words import explain
from compression.working import Stopped

_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)
_FROM_TRIAL: TypeAdapter[Measurement | KernelCosts | MemoryPeaks | Failed] = TypeAdapter(
    Measurement | KernelCosts | MemoryPeaks | Failed
)
_GRACE_S = 60.0
"""Beyond the time that a child was given: import, load, and one run of a slow model."""
_LEAST_MINUTES = 1.0
"""For a worker that goes on with what another one has begun."""
_TRIAL_LIMITS = children.Limits(first_to_die=True)


def _ignore(_: object) -> None:
    pass


async def trial(job: TrialJob) -> Measurement:
    """Measure one candidate in a process of its own.

    Raises:
        CannotRun: it died or took too long; how is in the message.
        BadModel, BadInputs: as the trial says.
        Unavailable: no process can be started.
    """
    answer = await _run(job)
    if not isinstance(answer, Measurement):
        raise errors.CompressionError("cannot understand the trial: it measured something else")
    return answer


async def _run(
    job: TrialJob | KernelJob | MemoryJob, breaks: Breaks | None = None
) -> Measurement | KernelCosts | MemoryPeaks:
    many = len(job.ways) if isinstance(job, MemoryJob) else 1
    limit_s = many * job.seconds * 3 + _GRACE_S
    async with talking.running("compression.trial", _TRIAL_LIMITS) as child, _among(breaks, child):
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


async def _answer(
    request: TrialRequest | KernelRequest | MemoryRequest, breaks: Breaks | None = None
) -> TrialAnswer:
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


async def _undisturbed(
    request: TrialRequest | KernelRequest | MemoryRequest, breaks: Breaks | None
) -> TrialAnswer:
    """Answer by a trial that no break disturbs: what was measured in one means nothing."""
    while breaks is not None:
        await breaks.ended()
        with contextlib.suppress(Outlasted):
            return await unless(breaks.begun(), _answer(request, breaks))
    return await _answer(request)


async def compress(
    job: CompressJob,
    *,
    memory_mib: float,
    on_progress: Callable[[Progress], None] = _ignore,
    on_tried: Callable[[Tried], None] = _ignore,
    breaks: Breaks | None = None,
) -> Ladder:
    """Run one job in a worker at idle priority, under a memory ceiling, to its ladder.

    In `breaks` it is stopped and its trials are given up, to be run anew; after a long one a new
    worker goes on with what is on the disk. The job's minutes are those in which it works.

    Raises:
        BadModel, BadInputs, OutOfBudget, CannotRun, CompressionError: as the worker says, or
            because it died; what ran before is untouched.
        Unavailable: no process can be started.
    """
    limits = children.Limits(idle=True, data_mib=memory_mib, first_to_die=True)
    if breaks is None:
        async with talking.running("compression.worker", limits) as child, _limited(job):
            await child.tell(job.to_json())
            return await _converse(child, on_progress, on_tried)
    while True:
        await breaks.ended()
        began_s = time.monotonic()
        with contextlib.closing(Stopped()) as stopped:
            try:
                async with (
                    talking.running(
                        "compression.worker", limits, descriptors=[stopped.descriptor]
                    ) as child,
                    _limited(job) as deadline,
                ):
                    await child.tell(job.to_json())
                    return await _obedient(
                        obeyed(breaks, child, stopped, deadline),
                        _converse(child, on_progress, on_tried, breaks), breaks, child,
                    )  # fmt: skip
            except Outlasted:
                worked_s = time.monotonic() - began_s - stopped.seconds - breaks.lasted_s()
                left = max(_LEAST_MINUTES, job.minutes - worked_s / 60)
                job = job.model_copy(update={"minutes": left})


async def _obedient(
    obeying: Coroutine[Any, Any, None], work: Coroutine[Any, Any, Ladder],
    breaks: Breaks, child: talking.Child,
) -> Ladder:  # fmt: skip
    try:
        with breaks.counting(child):
            return await unless(obeying, work)
    except errors.CannotRun as error:
        if breaks.free:
            raise
        raise Outlasted from error  # memory ended while it was stopped: it is the first to die


@contextlib.asynccontextmanager
async def _limited(job: CompressJob) -> AsyncIterator[asyncio.Timeout]:
    limit_s = (job.minutes + job.recover_minutes) * 60 + _GRACE_S
    try:
        async with asyncio.timeout(limit_s) as deadline:
            yield deadline
    except TimeoutError:
        raise errors.OutOfBudget(
            f"cannot finish compressing {job.model_name}: stopped after {limit_s:.0f} s"
        ) from None


async def _converse(
    child: talking.Child,
    on_progress: Callable[[Progress], None],
    on_tried: Callable[[Tried], None],
    breaks: Breaks | None = None,
) -> Ladder:
    while line := await child.line():
        try:
            message = _FROM_WORKER.validate_json(line)
        except ValidationError as error:
            raise errors.CompressionError(
                f"cannot understand the worker: {explain(error)}"
            ) from error
        match message:
            case Progress():
                on_progress(message)
            case Tried():
                on_tried(message)
            case TrialRequest() | KernelRequest() | MemoryRequest():
                await child.tell((await _undisturbed(message, breaks)).to_json())
            case Done():
                return message.ladder
            case Failed():
                raise talking.with_log(errors.from_wire(message.kind, message.message), child)
    died = errors.CannotRun(f"cannot compress: the worker died, {await child.death()}")
    raise talking.with_log(died, child)
