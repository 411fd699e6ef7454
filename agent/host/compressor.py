"""The parent's side of a compression job: runs the worker, and every trial that it asks for.

The worker runs at idle priority and may not start anything, so the trials are children of
this process, at the priority that serving has.
"""

import asyncio
from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError

from agent.host import children, talking
from compression import errors
from compression.job import (
    CompressJob,
    Done,
    Failed,
    FromWorker,
    KernelCosts,
    KernelJob,
    KernelRequest,
    Ladder,
    Measurement,
    Progress,
    TrialAnswer,
    TrialJob,
    TrialRequest,
    Tried,
)
from compression.words import explain

_FROM_WORKER: TypeAdapter[FromWorker] = TypeAdapter(FromWorker)
_FROM_TRIAL: TypeAdapter[Measurement | KernelCosts | Failed] = TypeAdapter(
    Measurement | KernelCosts | Failed
)
_GRACE_S = 60.0
"""Beyond the time that a child was given: import, load, and one run of a slow model."""
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


async def _run(job: TrialJob | KernelJob) -> Measurement | KernelCosts:
    limit_s = job.seconds * 3 + _GRACE_S
    async with talking.running("compression.trial", _TRIAL_LIMITS) as child:
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


async def _answer(request: TrialRequest | KernelRequest) -> TrialAnswer:
    try:
        found = await _run(request.job)
        if isinstance(found, KernelCosts):
            return TrialAnswer(kernels=found)
        return TrialAnswer(measurement=found)
    except errors.CompressionError as error:
        return TrialAnswer(failed=Failed(**errors.to_wire(error)))


async def compress(
    job: CompressJob,
    *,
    memory_mib: float,
    on_progress: Callable[[Progress], None] = _ignore,
    on_tried: Callable[[Tried], None] = _ignore,
) -> Ladder:
    """Run one job in a worker at idle priority, under a memory ceiling, to its ladder.

    Raises:
        BadModel, BadInputs, OutOfBudget, CannotRun, CompressionError: as the worker says, or
            because it died; what ran before is untouched.
        Unavailable: no process can be started.
    """
    limits = children.Limits(idle=True, data_mib=memory_mib, first_to_die=True)
    limit_s = (job.minutes + job.recover_minutes) * 60 + _GRACE_S
    async with talking.running("compression.worker", limits) as child:
        try:
            async with asyncio.timeout(limit_s):
                await child.tell(job.to_json())
                return await _converse(child, on_progress, on_tried)
        except TimeoutError:
            raise errors.OutOfBudget(
                f"cannot finish compressing {job.model_name}: stopped after {limit_s:.0f} s"
            ) from None


async def _converse(
    child: talking.Child, on_progress: Callable[[Progress], None], on_tried: Callable[[Tried], None]
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
            case TrialRequest() | KernelRequest():
                await child.tell((await _answer(message)).to_json())
            case Done():
                return message.ladder
            case Failed():
                raise talking.with_log(errors.from_wire(message.kind, message.message), child)
    died = errors.CannotRun(f"cannot compress: the worker died, {await child.death()}")
    raise talking.with_log(died, child)
