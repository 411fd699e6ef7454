"""Follows what the device tells: its events, its retained status, its telemetry."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from agent.errors import Refused, Unavailable
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.protocol.events import Event, Live, Status, Telemetry
from agent.protocol.topics import Topics

T = TypeVar("T")
_LOOK_AGAIN_S = 0.25
_REST = {"live", "refused", "failed"}


class Watch:
    """What one device has told so far. `check` is called while waiting, to notice a dead child."""

    def __init__(self, link: Link, topics: Topics, device: str, check: Callable[[], None]) -> None:
        """Listen through `link`; call `begin` first."""
        self.events: list[Event] = []
        self.telemetry: list[Telemetry] = []
        self.status: Status | None = None
        self._link = link
        self._check = check
        self._changed = asyncio.Event()
        self._tables: dict[str, Callable[[bytes], None]] = {
            topics.event(device): lambda data: self.events.append(Event.model_validate_json(data)),
            topics.telemetry(device): lambda data: self.telemetry.append(
                Telemetry.model_validate_json(data)
            ),
            topics.status(device): self._new_status,
        }

    async def begin(self) -> None:
        """Subscribe; kept across reconnects.

        Raises:
            Unavailable: the broker denied it.
        """
        await self._link.keep(tuple(self._tables), self._hear)

    def _hear(self, message: Message) -> None:
        try:
            self._tables[message.topic](message.payload)
        except ValidationError:  # not ours to read: a version of the agent that we do not know
            return
        self._changed.set()

    def _new_status(self, data: bytes) -> None:
        self.status = Status.model_validate_json(data)

    async def until(self, found: Callable[[], T | None], *, what: str, seconds: float) -> T:
        """Wait until `found` gives something, which is returned.

        Raises:
            Unavailable: a child has ended, or the time is over: "cannot WHAT: ...".
        """
        deadline = time.monotonic() + seconds
        while (value := found()) is None:
            self._check()
            if time.monotonic() > deadline:
                raise Unavailable(f"cannot {what}: not within {seconds:.0f} s")
            self._changed.clear()
            try:
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return value

    async def meanwhile(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, and notice when a child ends before it is done; return its result.

        Raises:
            Unavailable: a child has ended, or what `work` raises.
        """
        task = asyncio.create_task(work, name="what the demo does")
        try:
            while not task.done():
                self._check()
                await asyncio.wait({task}, timeout=_LOOK_AGAIN_S)
            return task.result()
        finally:
            task.cancel()

    async def online(self, *, seconds: float) -> str:
        """Wait for the device; return the URL of its inference server.

        Raises:
            Unavailable: its agent ended, or it does not report in time.
        """
        return await self.until(
            lambda: self.status.http_url if self.status and self.status.online else None,
            what="bring the device online",
            seconds=seconds,
        )

    async def until_rest(
        self, model: str, *, seen: int, on_event: Callable[[Event], None], seconds: float
    ) -> Sequence[Event]:
        """Hand each event of `model` from number `seen` on to `on_event`, until it rests.

        Raises:
            Refused: the device refused the deployment; its reason.
            Unavailable: the deployment failed, a child has ended, or it takes too long.
        """
        heard: list[Event] = []
        at = seen

        def rest() -> Event | None:
            nonlocal at
            while at < len(self.events):
                event, at = self.events[at], at + 1
                if event.model != model:
                    continue
                heard.append(event)
                on_event(event)
                if event.kind == "state" and event.state in _REST:
                    return event
            return None

        last = await self.until(rest, what=f"deploy {model}", seconds=seconds)
        if last.state != "live":
            kind = Refused if last.state == "refused" else Unavailable
            raise kind(f"cannot deploy {model}: {last.state}: {last.message}")
        return heard

    async def serving(self, model: str, *, seconds: float) -> Live:
        """Wait until the retained status says that `model` really runs.

        Raises:
            Unavailable: a child has ended, or it is not loaded in time.
        """

        def live() -> Live | None:
            models = self.status.models if self.status else ()
            return next(
                (m for m in models if m.name == model and m.state == "live" and m.sha256), None
            )

        return await self.until(live, what=f"see {model} serve", seconds=seconds)
