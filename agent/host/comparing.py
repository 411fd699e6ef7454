"""The parent's side of live inputs: they are gathered into a file, or compared with a reference."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from pydantic import ValidationError

from agent.errors import Unavailable
from agent.host import children, talking
from agent.protocol.capturing import Compared, Gathered, GatherJob, ShadowJob
from compression.words import explain

_LIMITS = children.Limits(idle=True, first_to_die=True)
_GATHER_S = 600.0


async def gather(job: GatherJob) -> Gathered:
    """Make one .npz of what was collected.

    Raises:
        Unavailable: the child died or took too long; nothing lies at `job.out`, or all of it.
    """
    async with talking.running("agent.serving.gather", _LIMITS) as child:
        await child.tell(job.to_json())
        try:
            async with asyncio.timeout(_GATHER_S):
                line = await child.line()
                how = "" if line else await child.death()
        except TimeoutError:
            how = f"no end after {_GATHER_S:.0f} s"
        if how:
            raise talking.with_log(Unavailable(f"cannot gather the collected inputs: {how}"), child)
        return Gathered.model_validate_json(line)


@contextlib.asynccontextmanager
async def shadow(job: ShadowJob) -> AsyncIterator[Callable[[], Compared]]:
    """Run a reference on what is queued, at idle priority; tells the newest comparison.

    Its death is no trouble for what serves: the comparison says so, and no more comes.

    Raises:
        Unavailable: no process can be started.
    """
    newest = Compared()

    async def listen(child: talking.Child) -> None:
        nonlocal newest
        while line := await child.line():
            try:
                newest = Compared.model_validate_json(line)
            except ValidationError as error:
                newest = newest.model_copy(update={"cannot": explain(error)})
        if not newest.cannot:
            died = f"the reference died: {await child.death()}"
            newest = newest.model_copy(update={"cannot": died})

    async with talking.running("agent.serving.shadow", _LIMITS) as child:
        await child.tell(job.to_json())
        listening = asyncio.create_task(listen(child), name=f"shadow of {job.folder}")
        try:
            yield lambda: newest
        finally:
            listening.cancel()
            await asyncio.wait({listening})
