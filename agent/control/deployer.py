"""What may be asked of the deployments of this device."""

from typing import Any

from agent.control import collecting, losing, neighbours, reworking, stepping, waking, ways_back
from agent.control.driving import Driver
from agent.control.parts import Parts
from agent.control.record import Deployment, Record, Records, Variant
from agent.control.states import TRANSITIONS, WORKING, Event, State
from agent.control.tasks import Tasks
from agent.errors import Refused, Unavailable
from agent.protocol.commands import Deploy, Recompress, SetBudget
from compression.job import Budget

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
        self._parts, self._records, self._again_s = parts, records, again_s
        self._driver = Driver(parts, records, retry_least_s=retry_least_s)
        self._tasks = Tasks(self._driver, parts, retry_least_s=retry_least_s)

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
            self._tasks.begin(record.model)
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
        replaced = await self._tasks.end(model)
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
                self._tasks.begin(model)
            raise
        self._tasks.begin(model)
        return message + ("; the deployment under way was stopped for it" if replaced else "")

    async def step(self, model: str, variant: Variant, message: str) -> None:
        """Have a model at rest serve another variant, as agent.control.stepping says."""
        await stepping.step(model, variant, message, driver=self._driver, tasks=self._tasks)

    async def cancel(self, model: str) -> str:
        """Stop the work on a model; what serves goes on serving, or of what is being observed
        its predecessor.

        Raises:
            Refused: nothing is under way.
        """
        record = self._known(model)
        if record is not None and record.is_in(State.RESTORING):
            return "it is on its way back already"  # to stop that would only begin it anew
        if record is None or not record.is_in(*WORKING) or not await self._tasks.end(model):
            raise Refused(f"cannot cancel {model}: nothing is under way")
        try:
            self._driver.follow(self._driver.known[model], Event.CANCELLED, "cancelled by command")
        finally:
            self._tasks.begin(model)
        return "cancelled"

    async def remove(self, model: str) -> str:
        """Stop serving a model and forget its files.

        Raises:
            Refused: it is not here.
        """
        if self._known(model) is None:
            raise Refused(f"cannot remove {model}: it is not deployed here")
        await self._tasks.end(model)
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
        if record.is_in(*_ON_INPUTS):
            await self.cancel(model)
        return f"{await collecting.forget(model, self._parts)} inputs of {model} are deleted"

    async def lost(self, model: str, why: str, said: str = "") -> None:
        """The server gave a model up, as agent.control.losing says; `said` is its last word."""
        await losing.lost(
            model, why, said, driver=self._driver, tasks=self._tasks, parts=self._parts,
            again_s=self._again_s,
        )  # fmt: skip

    async def stop(self) -> None:
        """Stop driving; everything resumes at the next start."""
        await self._tasks.end_all()

    async def wait(self, model: str) -> Record:
        """Wait until a model's deployment rests; return its record."""
        await self._tasks.wait(model)
        return self._driver.known[model]

    def _known(self, model: str) -> Record | None:
        return self._driver.known.get(model)
