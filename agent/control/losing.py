"""What becomes of a model that the server gave up, because it died of it."""

from agent.control import ways_back
from agent.control.driving import Driver
from agent.control.parts import Parts
from agent.control.states import LOADING, WORKING, Event, State
from agent.control.tasks import Tasks
from agent.errors import TrimtabError


async def lost(
    model: str, why: str, said: str, *, driver: Driver, tasks: Tasks, parts: Parts, again_s: float
) -> None:
    """Have what served before serve again; where there is nothing, the same after `again_s`.

    `said` is the last that the server wrote. Work that is under way goes on.
    """
    record = driver.known.get(model)
    if record is None or record.deployment is None:
        return
    if record.is_in(*LOADING):
        return  # the work under way ends with a switch or a restore of its own
    if not ways_back.others(record) and not record.is_in(*WORKING):
        message = f"cannot serve {model}: {why}; no variant is left, so it is loaded again"
        parts.emit("crashed", record, f"{message} in {again_s / 60:.0f} min")
        await tasks.end(model)
        tasks.begin(model, after_s=again_s)
        return
    await tasks.end(model)
    record = driver.known[model]
    try:
        if record.is_in(*WORKING) and not record.is_in(State.OBSERVING):
            driver.save(ways_back.distrust(record))
        else:
            driver.follow(record, Event.CRASHED, f"fell back: {why}", said)
    except TrimtabError as error:
        parts.emit("crashed", record, f"cannot fall back: {error}")
    finally:
        tasks.begin(model)
