"""Drives deployments: save the state, take its step, follow the table; one task per model."""

import asyncio
import logging

from agent.control.parts import Outcome, Parts
from agent.control.pauses import Pauses
from agent.control.record import Deployment, Record, Records
from agent.control.states import DEADLINE_S, REST, TRANSITIONS, Event, State
from agent.control.steps import STEPS
from agent.control.variants import load_request, switch_to
from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from agent.protocol.commands import Deploy
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

_ENDING = {Event.REFUSED: State.REFUSED, Event.FAILED: State.FAILED, Event.CANCELLED: State.FAILED}
_LOADING = {State.STARTING, State.SWITCHING}
_RETRY_LEAST_S = 0.5


class Deployer:
    """All deployments of this device."""

    def __init__(self, parts: Parts, records: Records, *, retry_least_s: float = _RETRY_LEAST_S):
        """Drive with `parts`, remember in `records`."""
        self._parts = parts
        self._records = records
        self._retry_least_s = retry_least_s
        self._known: dict[str, Record] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def records(self) -> tuple[Record, ...]:
        """What is known of every model, by name."""
        return tuple(self._known[name] for name in sorted(self._known))

    async def resume(self) -> list[str]:
        """Serve what served before the stop, then go on with what was under way.

        Returns one sentence for each thing that could not be brought back.
        """
        records, troubles = self._records.all()
        for record in records:
            self._known[record.model] = await self._bring_back(record, troubles)
        for record in self.records():
            if _at_work(record):
                self._begin(record.model)
            elif record.live and self._parts.served(record.model) != record.live.sha256:
                self._tasks[record.model] = asyncio.create_task(
                    self._bring_back_later(record.model), name=f"bringing back {record.model}"
                )
        if not troubles:  # a record that is damaged may still be mended by hand
            self._sweep()
        return troubles

    def _sweep(self) -> None:
        """Free the disk of models that nobody knows: a kill came while they were removed."""
        for entry in self._parts.catalog.entries():
            if entry.name not in self._known:
                self._parts.catalog.remove(entry.name, entry.version)

    async def _bring_back_later(self, model: str) -> None:
        """Load what should serve, again and again while the device has no room for it."""
        pauses = Pauses(self._retry_least_s)
        while True:
            await pauses.rest()
            record = self._known[model]
            assert record.live is not None
            try:
                manifest = self._parts.catalog.manifest(model, record.live.version)
                await self._parts.load(load_request(model, record.live, manifest, self._parts))
            except Unavailable as error:
                log.warning("%s: %s; trying again", model, error)
            except TrimtabError as error:
                self._parts.emit("crashed", record, f"cannot bring back {model}: {error}")
                return
            else:
                self._parts.emit("swapped", record, f"{record.live.label!r} serves again",
                                 label=record.live.label, sha256=record.live.sha256)  # fmt: skip
                return

    async def _bring_back(self, record: Record, troubles: list[str]) -> Record:
        """Load what served before the stop, or where that is damaged what served before it."""
        for variant in (record.live, record.previous):
            if variant is None:
                continue
            try:
                manifest = self._parts.catalog.manifest(record.model, variant.version)
                await self._parts.load(load_request(record.model, variant, manifest, self._parts))
            except TrimtabError as error:
                troubles.append(f"cannot bring back {record.model} ({variant.label}): {error}")
            else:
                return record.model_copy(update={"live": variant})
        return record

    async def start(self, command_id: str, order: Deploy) -> str:
        """Begin a deployment; one that is under way for the same model gives way.

        Raises:
            Refused: that version is older than what serves.
        """
        record = self._known.get(order.model) or Record(model=order.model)
        if record.live and order.version < record.live.version:
            raise Refused(
                f"cannot deploy {order.model}@{order.version}: "
                f"older than {record.live.version}, which serves"
            )
        if record.deployment and record.deployment.id == command_id:
            return "accepted"  # a kill came between the deployment's begin and our answer
        replaced = await self._stop_task(order.model)
        record = self._known.get(order.model) or record
        deployment = Deployment(
            id=command_id,
            version=order.version,
            strategy=order.strategy,
            budget=order.budget,
            minutes=order.minutes,
            allow_unverified=order.allow_unverified,
        )
        try:
            self._enter(record.model_copy(update={"deployment": deployment}), "accepted")
        except Unavailable:
            if replaced:  # what was under way goes on
                self._begin(order.model)
            raise
        self._begin(order.model)
        return "accepted" + ("; the deployment under way was stopped for it" if replaced else "")

    async def cancel(self, model: str) -> str:
        """Stop the work on a model; what serves goes on serving.

        Raises:
            Refused: nothing is under way.
        """
        record = self._known.get(model)
        if record is None or not _at_work(record) or not await self._stop_task(model):
            raise Refused(f"cannot cancel {model}: nothing is under way")
        try:
            self._follow(self._known[model], Event.CANCELLED, "cancelled by command")
        finally:
            self._begin(model)
        return "cancelled"

    async def remove(self, model: str) -> str:
        """Stop serving a model and forget its files.

        Raises:
            Refused: it is not here.
        """
        if model not in self._known:
            raise Refused(f"cannot remove {model}: it is not deployed here")
        await self._stop_task(model)
        await self._parts.unload(model)
        self._records.remove(model)
        del self._known[model]
        self._parts.catalog.remove(model)
        return "removed"

    async def lost(self, model: str, why: str) -> None:
        """The server gave a model up; what served before it serves again, where there is any."""
        record = self._known.get(model)
        working = self._tasks.get(model)
        if record is None or (working is not None and not working.done()):
            return  # the work under way ends with a switch or a restore of its own
        fallback = record.previous
        if fallback is None or record.live is None or fallback.sha256 == record.live.sha256:
            self._parts.emit("crashed", record, f"cannot serve {model}: {why}; no variant is left")
            return
        try:
            manifest = self._parts.catalog.manifest(model, fallback.version)
            after = await switch_to(record, fallback, manifest, self._parts)
            if model not in self._known:  # removed meanwhile
                await self._parts.unload(model)
            if self._known.get(model) is not record:  # a command came; its work ends otherwise
                return
            # The one that crashed is not the way back.
            record = after.model_copy(update={"previous": None})
            self._known[model] = record  # it serves, whether or not it can be saved
            self._records.save(record)
        except TrimtabError as error:
            self._parts.emit("crashed", record, f"cannot fall back to {fallback.label!r}: {error}")
            return
        message = f"fell back to {fallback.label!r}: {why}"
        if record.deployment:
            self._enter(record.with_deployment(message=message), message)

    async def stop(self) -> None:
        """Stop driving; everything resumes at the next start."""
        for model in list(self._tasks):
            await self._stop_task(model)

    async def wait(self, model: str) -> Record:
        """Wait until a model's deployment rests; return its record."""
        task = self._tasks.get(model)
        if task is not None:
            await asyncio.shield(task)
        return self._known[model]

    def _begin(self, model: str) -> None:
        self._tasks[model] = asyncio.create_task(self._drive(model), name=f"deployment of {model}")

    async def _stop_task(self, model: str) -> bool:
        """Stop the model's task; whether it was working."""
        task = self._tasks.pop(model, None)
        if task is None or task.done():
            return False
        task.cancel()
        await asyncio.wait({task})  # not `await task`: that would hide our own cancellation
        return True

    async def _drive(self, model: str) -> None:
        while True:
            record = self._known[model]
            deployment = record.deployment
            if deployment is None or deployment.state in REST:
                break
            event, record, message = await self._step(record, deployment.state)
            await self._follow_on(record, event, message)
        try:
            self._tidy(model)
        except (TrimtabError, OSError) as error:
            log.warning("cannot free the disk of old versions of %s: %s", model, error)

    async def _follow_on(self, record: Record, event: Event, message: str) -> None:
        """Follow the table; where the disk is full, wait: nothing is done unremembered."""
        pauses = Pauses(self._retry_least_s)
        while True:
            try:
                self._follow(record, event, message)
            except Unavailable as error:
                log.warning("%s; trying again", error)
            else:
                return
            await pauses.rest()

    async def _step(self, record: Record, state: State) -> tuple[Event, Record, str]:
        """Take one step, again while what it needs is not there, until its deadline."""
        deadline_s = DEADLINE_S[state]
        try:
            async with asyncio.timeout(deadline_s):
                event, after = await self._persistently(record, state)
        except TimeoutError:
            return Event.FAILED, record, f"cannot finish {state} in {deadline_s:.0f} s"
        except Exception as error:
            kind = next((end for kind, end in _ENDS if isinstance(error, kind)), None)
            if kind is None:
                log.exception("a bug in %s of %s", state, record.model)
                return Event.FAILED, record, f"internal error in {state}: {error!r}"
            return kind, record, str(error)
        message = after.deployment.message if after.deployment else ""
        return event, after, message

    async def _persistently(self, record: Record, state: State) -> Outcome:
        pauses, last_said = Pauses(self._retry_least_s), ""
        while True:
            try:
                return await STEPS[state](record, self._parts)
            except (Unavailable, OSError) as error:
                if str(error) != last_said:  # said once, not at every attempt
                    last_said = str(error)
                    self._parts.emit("progress", record, f"waiting: {error}", stage="wait")
                    log.warning("%s of %s waits: %s", state, record.model, error)
            await pauses.rest()

    def _follow(self, record: Record, event: Event, message: str) -> None:
        assert record.deployment is not None
        state = record.deployment.state
        if state is State.RESTORING and event in {Event.REFUSED, Event.FAILED}:
            message = message or record.deployment.message
        if state is State.RESTORING and event is Event.CANCELLED:
            return  # already on its way to rest
        changes: dict[str, object] = {"state": TRANSITIONS[state, event], "message": message}
        if TRANSITIONS[state, event] is State.RESTORING:
            changes |= {"ending": _ENDING[event], "reload": state in _LOADING}
        self._enter(record.with_deployment(**changes), message)

    def _enter(self, record: Record, message: str) -> None:
        """Save, then tell."""
        assert record.deployment is not None
        self._records.save(record)
        self._known[record.model] = record
        log.info("%s: %s %s", record.model, record.deployment.state, message)
        self._parts.emit("state", record, message)

    def _tidy(self, model: str) -> None:
        """Free the disk of versions that are neither live nor the way back."""
        record = self._known[model]
        kept = {v.version for v in (record.live, record.previous) if v}
        if record.deployment and record.deployment.state is State.LIVE:
            kept.add(record.deployment.version)
        for entry in self._parts.catalog.entries():
            if entry.name == model and entry.version not in kept:
                self._parts.catalog.remove(model, entry.version)
        if not any(_is_in(other, State.FETCHING) for other in self._known.values()):
            self._parts.drop_chunks()  # of a pull that was cancelled or failed


def _is_in(record: Record, state: State) -> bool:
    return record.deployment is not None and record.deployment.state is state


def _at_work(record: Record) -> bool:
    return record.deployment is not None and record.deployment.state not in REST
