"""A model at rest serves another of its variants: for its neighbours, not by command."""

import asyncio
import contextlib

from agent.control.driving import Driver
from agent.control.record import Variant
from agent.control.states import DEADLINE_S, TRANSITIONS, WORKING, Event, State
from agent.control.tasks import Tasks


async def step(model: str, variant: Variant, message: str, *, driver: Driver, tasks: Tasks) -> None:
    """Have it serve another variant of the version that serves, and wait for that.

    What is under way there is left alone.

    Raises:
        Unavailable: the disk is full; nothing has changed.
    """
    record = driver.known.get(model)
    if record is None or record.deployment is None or record.is_in(*WORKING):
        return
    await tasks.end(model)
    following = TRANSITIONS[record.deployment.state, Event.BACK]
    record = driver.known[model].with_deployment(
        state=following, ending=State.LIVE, reload=True, target=variant, message=message,
        spent_s=0.0,
    )  # fmt: skip
    try:
        driver.enter(record, message)
    finally:
        tasks.begin(model)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S[following]):
            await tasks.wait(model)
