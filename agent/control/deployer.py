"""What may be asked of the deployments of this device; one task per model drives its own."""

import asyncio
import contextlib
import logging
from typing import Any

from agent.control import collecting, neighbours, reworking, waking, ways_back
from agent.control.driving import Driver
from agent.control.parts import Parts
from agent.control.record import Deployment, Record, Records, Variant
from agent.control.states import DEADLINE_S, LOADING, TRANSITIONS, WORKING, Event, State
from agent.errors import Refused, TrimtabError, Unavailable
from agent.protocol.commands import Deploy, Recompress, SetBudget
from compression.job import Budget

log = logging.getLogger(__name__)

_RETRY_LEAST_S = 0.5
_AGAIN_S = 600.0
"""What felled the server, and is all there is, is loaded again after so long: its neighbours must
not fall with it more often than that."""
_ON_INPUTS = (State.COLLECTING, State.COMPRESSING, State.TRYING)
"""In these a deployment works on collected inputs."""


class Deployer:
    """All deployments of this device."""

    def __init__(
        self, parts: Parts, records: Records, *, retry_least_s: float = _RETRY_LEAST_S,
        again_s: float = _AGAIN_S,
    ) -> None:  # fmt: skip
        """Drive with `parts`, remember in `records`."""
        self._parts, self._records, self._retry_least_s = parts, records, retry_least_s
        self._again_s = again_s
        self._driver = Driver(parts, records, retry_least_s=retry_least_s)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def records(self) -> tuple[Record, ...]:
        """What is known of every model, by name."""
        return tuple(self._driver.known[name] for name in sorted(self._driver.known))

    async def resume(self) -> list[str]:
        """Serve what served before the stop, then go on with what was under way.

        Returns one sentence for each thing that could not be brought back.
        """
        records, troubles = self._records.all()
        for record in records:
            back = await waking.bring_back(record, self._parts, troubles)
            self._driver.known[record.model] = back
        for record in self.records():
            self._begin(record.model)
        if not troubles:  # a record that is damaged may still be mended by hand
            waking.sweep(self._driver, self._parts)
        return troubles

    async def start(self, command_id: str, order: Deploy) -> str:
        """Begin a deployment; one that is under way for the same model gives way.

        Raises:
            Refused: that version is older than what serves.
        """
        record = self._known(order.model) or Record(model=order.model)
        if record.live and order.version < record.live.version:
            raise Refused(
                f"cannot deploy {order.model}@{order.version}: "
                f"older than {record.live.version}, which serves"
            )
        if record.deployment and record.deployment.id == command_id:
            return "accepted"  # a kill came between the deployment's begin and our answer
        ordered = order.model_dump(exclude={"kind", "model", "budget"})
        return await self._replace(
            order.model, "accepted", id=command_id, budget=order.budget, **ordered
        )

    async def again(self, command_id: str, order: SetBudget | Recompress) -> str:
        """Work once more on what serves: by another budget, or for something better.

        Raises:
            Refused: nothing of it serves, or another version is on its way.
        """
        record = self._known(order.model)
        if record and record.deployment and record.deployment.id == command_id:
            return "accepted"
        begun = reworking.fields(record, order, self._parts)
        return await self._replace(order.model, "accepted", id=command_id, **begun)

    async def rollback(self, command_id: str, model: str, version: int | None) -> str:
        """Serve what served before the last deployment, or what is kept of a version.

        Raises:
            Refused: there is no such way back.
        """
        record = self._known(model)
        if record is None:
            raise Refused(f"cannot roll {model} back: it is not deployed here")
        if record.deployment and record.deployment.id == command_id:
            return "accepted"
        target = ways_back.target(record, version)
        return await self._replace(
            model, f"rolling back to {target.label!r} of version {target.version}, by command",
            id=command_id, version=target.version, strategy="as-is", budget=Budget(), minutes=1.0,
            state=TRANSITIONS[State.LIVE, Event.BACK], ending=State.LIVE, reload=True,
            target=target,
        )  # fmt: skip

    async def _replace(self, model: str, message: str, **fields: Any) -> str:
        """Begin a deployment of these fields in the place of what is under way."""
        replaced = await self._stop_task(model)
        record = self._known(model) or Record(model=model)
        if record.deployment:  # what no command changes stays
            last = record.deployment
            fields = {"priority": last.priority, "weight": last.weight} | fields
        deployment = Deployment(began_with=record.live, **fields)
        if deployment.purpose == "set-budget" and record.live and deployment.effective_budget:
            live = reworking.judged(record.live, deployment.effective_budget, self._parts)
            record = record.model_copy(update={"live": live})
        if deployment.state is State.RESTORING:
            deployment = deployment.model_copy(update={"message": message})
        try:
            self._driver.enter(record.model_copy(update={"deployment": deployment}), message)
        except Unavailable:
            if replaced:  # what was under way goes on
                self._begin(model)
            raise
        self._begin(model)
        return message + ("; the deployment under way was stopped for it" if replaced else "")

    async def step(self, model: str, variant: Variant, message: str) -> None:
        """Have a model at rest serve another variant of the version that serves, and wait for it.

        What is under way there is left alone.

        Raises:
            Unavailable: the disk is full; nothing has changed.
        """
        record = self._known(model)
        if record is None or record.deployment is None or _in(record, *WORKING):
            return
        await self._stop_task(model)
        following = TRANSITIONS[record.deployment.state, Event.BACK]
        record = self._driver.known[model].with_deployment(
            state=following, ending=State.LIVE, reload=True, target=variant, message=message,
            spent_s=0.0,
        )  # fmt: skip
        try:
            self._driver.enter(record, message)
        finally:
            self._begin(model)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S[following]):
                await self.wait(model)

    async def cancel(self, model: str) -> str:
        """Stop the work on a model; what serves goes on serving, or of what is being observed
        its predecessor.

        Raises:
            Refused: nothing is under way.
        """
        record = self._known(model)
        if record is not None and _in(record, State.RESTORING):
            return "it is on its way back already"  # to stop that would only begin it anew
        if record is None or not _in(record, *WORKING) or not await self._stop_task(model):
            raise Refused(f"cannot cancel {model}: nothing is under way")
        try:
            self._driver.follow(self._driver.known[model], Event.CANCELLED, "cancelled by command")
        finally:
            self._begin(model)
        return "cancelled"

    async def remove(self, model: str) -> str:
        """Stop serving a model and forget its files.

        Raises:
            Refused: it is not here.
        """
        if self._known(model) is None:
            raise Refused(f"cannot remove {model}: it is not deployed here")
        await self._stop_task(model)
        await self._parts.unload(model)
        self._records.remove(model)
        del self._driver.known[model]
        self._parts.catalog.remove(model)
        await neighbours.give_back(self._parts)
        return "removed"

    async def forget_inputs(self, model: str) -> str:
        """Delete what was collected of a model's live inputs; work that needs them ends.

        Raises:
            Refused: it is not here.
        """
        record = self._known(model)
        if record is None:
            raise Refused(f"cannot forget inputs of {model}: it is not deployed here")
        if _in(record, *_ON_INPUTS):
            await self.cancel(model)
        return f"{await collecting.forget(model, self._parts)} inputs of {model} are deleted"

    async def lost(self, model: str, why: str, said: str = "") -> None:
        """The server gave a model up; what served before it serves again, where there is any.

        `said` is the last that the server wrote.
        """
        record = self._known(model)
        if record is None or record.deployment is None:
            return
        if _in(record, *LOADING):
            return  # the work under way ends with a switch or a restore of its own
        if not ways_back.others(record) and not _in(record, *WORKING):
            message = f"cannot serve {model}: {why}; no variant is left, so it is loaded again"
            self._parts.emit("crashed", record, f"{message} in {self._again_s / 60:.0f} min")
            await self._stop_task(model)
            self._begin(model, after_s=self._again_s)
            return
        await self._stop_task(model)
        record = self._driver.known[model]
        try:
            if _in(record, *WORKING) and not _in(record, State.OBSERVING):
                self._driver.save(ways_back.distrust(record))
            else:
                self._driver.follow(record, Event.CRASHED, f"fell back: {why}", said)
        except TrimtabError as error:
            self._parts.emit("crashed", record, f"cannot fall back: {error}")
        finally:
            self._begin(model)

    async def stop(self) -> None:
        """Stop driving; everything resumes at the next start."""
        for model in list(self._tasks):
            await self._stop_task(model)

    async def wait(self, model: str) -> Record:
        """Wait until a model's deployment rests; return its record."""
        task = self._tasks.get(model)
        if task is not None:
            await asyncio.shield(task)
        return self._driver.known[model]

    def _known(self, model: str) -> Record | None:
        return self._driver.known.get(model)

    def _begin(self, model: str, *, after_s: float = 0.0) -> None:
        work = self._drive(model, after_s)
        self._tasks[model] = asyncio.create_task(work, name=f"deployment of {model}")

    async def _stop_task(self, model: str) -> bool:
        """Stop the model's task; whether it was working."""
        task = self._tasks.pop(model, None)
        if task is None or task.done():
            return False
        task.cancel()
        await asyncio.wait({task})  # not `await task`: that would hide our own cancellation
        return True

    async def _drive(self, model: str, after_s: float) -> None:
        """Drive to rest, free the disk, and make sure that what should serve does."""
        if after_s:
            await asyncio.sleep(after_s)
        await self._driver.drive(model)
        try:
            waking.tidy(model, self._driver, self._parts)
        except (TrimtabError, OSError) as error:
            log.warning("cannot free the disk of old versions of %s: %s", model, error)
        live = self._driver.known[model].live
        if live is not None and self._parts.served(model) != live.sha256:
            await waking.bring_back_later(model, self._driver, self._parts, self._retry_least_s)


def _in(record: Record, *states: State) -> bool:
    return record.deployment is not None and record.deployment.state in states
