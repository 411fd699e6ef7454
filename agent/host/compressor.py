"""The parent's side of a compression job: runs the worker, and every trial that it asks for.

The worker runs at idle priority and may not start anything, so the trials are children of
this process, at the priority that serving has (agent.host.trials).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.host import children, talking, trials
from agent.host.breaks import Breaks, Outlasted, obeyed, unless
from compression import errors
from compression.findings import Ladder
from compression.job import CompressJob
from compression.stream import (
    Done,
    Failed,
    FromWorker,
    KernelRequest,
    MemoryRequest,
    Progress,
    TrialRequest,
    Tried,
)
from compression.words import explain
from compression.working import Stopped

_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)
_LEAST_MINUTES = 1.0
"""For a worker that goes on with what another one has begun."""


def _ignore(_: object) -> None:
    pass


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
        async with (
            talking.running("compression.worker", limits) as child,
            _limited(job, child) as deadline,
        ):
            await child.tell(job.to_json())
            begun = partial(_begin, deadline, job)
            return await _converse(child, begun, on_progress=on_progress, on_tried=on_tried)
    while True:
        await breaks.ended()
        began_s = time.monotonic()
        with contextlib.closing(Stopped()) as stopped:
            try:
                async with (
                    talking.running(
                        "compression.worker", limits, descriptors=[stopped.descriptor]
                    ) as child,
                    _limited(job, child) as deadline,
                ):
                    await child.tell(job.to_json())
                    work = _converse(
                        child, partial(_begin, deadline, job),
                        on_progress=on_progress, on_tried=on_tried, breaks=breaks,
                    )  # fmt: skip
                    obeying = obeyed(breaks, child, stopped, deadline)
                    return await _obedient(obeying, work, breaks, child)
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


def _limit_s(job: CompressJob) -> float:
    return (job.minutes + job.recover_minutes) * 60 + trials.GRACE_S


@contextlib.asynccontextmanager
async def _limited(job: CompressJob, child: talking.Child) -> AsyncIterator[asyncio.Timeout]:
    limit_s = _limit_s(job)
    try:
        async with asyncio.timeout(limit_s) as deadline:
            yield deadline
    except TimeoutError:
        raise errors.OutOfBudget(
            f"cannot finish compressing {job.model_name}: stopped after {limit_s:.0f} s, in which "
            f"the worker had the processor for {child.cpu_s():.0f} s"
        ) from None


def _begin(deadline: asyncio.Timeout, job: CompressJob) -> None:
    """Let a job's minutes begin now: to start takes long where others want the processor."""
    deadline.reschedule(asyncio.get_running_loop().time() + _limit_s(job))


async def _converse(
    child: talking.Child,
    begun: Callable[[], None],
    *,
    on_progress: Callable[[Progress], None],
    on_tried: Callable[[Tried], None],
    breaks: Breaks | None = None,
) -> Ladder:
    line = await child.line()
    begun()
    while line:
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
                await child.tell((await trials.undisturbed(message, breaks)).to_json())
            case Done():
                return message.ladder
            case Failed():
                raise talking.with_log(errors.from_wire(message.kind, message.message), child)
        line = await child.line()
    died = errors.CannotRun(f"cannot compress: the worker died, {await child.death()}")
    raise talking.with_log(died, child)
