"""Drives one deployment to its rest: save the state, take its step, follow the table."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from agent.control import ways_back
from agent.control.parts import Outcome, Parts
from agent.control.pauses import Pauses
from agent.control.record import Record, Records
from agent.control.states import DEADLINE_S, LOADING, REST, TRANSITIONS, Event, State
from agent.control.steps import STEPS
from agent.control.variants import fall_back
from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from compression.errors import BadInputs, BadModel, CompressionError

log = logging.getLogger(__name__)

_ENDS: tuple[tuple[type[Exception], Event], ...] = (
    (Refused, Event.REFUSED),
    (BadInput, Event.REFUSED),
    (BadModel, Event.REFUSED),
    (BadInputs, Event.REFUSED),
    (Corrupt, Event.FAILED),
    (CompressionError, Event.FAILED),
)
"""How a step ends when it raises. Unavailable and OSError are not here: they are tried again."""

_ENDING = {
    Event.REFUSED: State.REFUSED,
    Event.FAILED: State.FAILED,
    Event.CANCELLED: State.FAILED,
    Event.CRASHED: State.FAILED,
}
_REMEMBER_TIME_S = 600.0
"""How often the time spent in a state is saved: a power cut costs a deadline at most this."""


class Driver:
    """Takes the steps of every model's deployment, and holds what is known of each model."""

    def __init__(self, parts: Parts, records: Records, *, retry_least_s: float) -> None:
        """Drive with `parts`, remember in `records`."""
        self.known: dict[str, Record] = {}
        self._parts, self._records = parts, records
        self._retry_least_s = retry_least_s

    async def drive(self, model: str) -> None:
        """Take one step after the other until the model's deployment rests."""
        while True:
            record = self.known[model]
            deployment = record.deployment
            if deployment is None or deployment.state in REST:
                return
            event, record, message, said = await self._step(record, deployment.state)
            await self._follow_on(record, event, message, said)

    def follow(self, record: Record, event: Event, message: str, said: str = "") -> None:
        """Follow the table; `said` is the last that what failed has written.

        Raises:
            Unavailable: the disk is full; nothing has changed.
        """
        assert record.deployment is not None
        state = record.deployment.state
        following = TRANSITIONS[state, event]
        if state is State.RESTORING:
            if event is Event.CANCELLED:
                return
            message = message or record.deployment.message
        changes: dict[str, object] = {"state": following, "message": message, "spent_s": 0.0}
        if following is State.RESTORING:
            changes |= {"ending": _ENDING[event], "reload": state in LOADING, "target": None}
            if state is State.OBSERVING and event is Event.CANCELLED:
                # It has not proved itself, and nothing speaks against it: the way back is taken.
                changes["target"] = next(iter(ways_back.others(record)), None)
            elif state in {State.OBSERVING, *REST}:
                record = ways_back.distrust(record)
        self.enter(record.with_deployment(**changes), message, said)

    def enter(self, record: Record, message: str, said: str = "") -> None:
        """Save, then tell.

        Raises:
            Unavailable: the disk is full; nothing has changed.
        """
        assert record.deployment is not None
        self.save(record)
        log.info("%s: %s %s", record.model, record.deployment.state, message)
        figures = {"log": said} if said else {}
        self._parts.emit("state", record, message, **figures)

    def save(self, record: Record) -> None:
        """Make a record durable, then known.

        Raises:
            Unavailable: the disk is full; nothing has changed.
        """
        self._records.save(record)
        self.known[record.model] = record

    async def _follow_on(self, record: Record, event: Event, message: str, said: str) -> None:
        """Follow the table; where the disk is full, wait: nothing is done unremembered."""
        pauses, last_said = Pauses(self._retry_least_s), ""
        while True:
            try:
                self.follow(record, event, message, said)
            except Unavailable as error:
                last_said = self._say_why(self.known[record.model], error, last_said)
            else:
                return
            await pauses.rest()

    def _say_why(self, record: Record, error: Exception, last_said: str) -> str:
        """Tell what is waited for: once, not at every attempt."""
        if str(error) != last_said:
            self._parts.emit("progress", record, f"waiting: {error}", stage="wait")
            state = record.deployment.state if record.deployment else ""
            log.warning("%s of %s waits: %s", state, record.model, error)
        return str(error)

    async def _step(self, record: Record, state: State) -> tuple[Event, Record, str, str]:
        """Take one step, again while what it needs is not there, until its deadline."""
        assert record.deployment is not None
        deadline_s = DEADLINE_S[state]
        try:
            async with (
                asyncio.timeout(max(0.0, deadline_s - record.deployment.spent_s)),
                self._time_kept(record),
            ):
                event, after = await self._persistently(record, state)
        except TimeoutError:
            return Event.FAILED, record, f"cannot finish {state} in {deadline_s:.0f} s", ""
        except Exception as error:
            record = self.known[record.model]  # it may have fallen back meanwhile
            said = "\n".join(getattr(error, "__notes__", ()))
            kind = next((end for kind, end in _ENDS if isinstance(error, kind)), None)
            if kind is None:
                log.exception("a bug in %s of %s", state, record.model)
                return Event.FAILED, record, f"internal error in {state}: {error!r}", said
            return kind, record, str(error), said
        message = after.deployment.message if after.deployment else ""
        return event, after, message, ""

    async def _persistently(self, record: Record, state: State) -> Outcome:
        pauses, last_said = Pauses(self._retry_least_s), ""
        while True:
            try:
                if state not in LOADING and ways_back.fallen(record):
                    record = await fall_back(record, self._parts)
                    self.save(record)
                return await STEPS[state](record, self._parts)
            except (Unavailable, OSError) as error:
                last_said = self._say_why(record, error, last_said)
            await pauses.rest()

    @contextlib.asynccontextmanager
    async def _time_kept(self, record: Record) -> AsyncIterator[None]:
        """Save now and then how long the state has lasted."""
        began, before = time.monotonic(), record.deployment.spent_s if record.deployment else 0.0

        async def keep() -> None:
            while True:
                await asyncio.sleep(_REMEMBER_TIME_S)
                spent_s = before + time.monotonic() - began
                with contextlib.suppress(TrimtabError):
                    self.save(self.known[record.model].with_deployment(spent_s=spent_s))

        task = asyncio.create_task(keep(), name=f"time of {record.model}")
        try:
            yield
        finally:
            task.cancel()
