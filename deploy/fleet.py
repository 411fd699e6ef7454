"""Talks to devices: signed commands out, replies, statuses and events back."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from securesystemslib.signer import Signer

from agent.errors import Unavailable
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.protocol import trust
from agent.protocol.commands import Body, Command
from agent.protocol.events import Event, Reply, Status
from agent.protocol.topics import Topics
from deploy import shelf

REPLY_S = 10.0
EXPIRY_S = 300.0
END_STATES = frozenset({"live", "refused", "failed"})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fleet:
    """A connected operator. `signer` may be None where nothing is commanded."""

    link: Link
    topics: Topics
    signer: Signer | None = None

    async def ask(
        self,
        audience: str,
        body: Body,
        *,
        command_id: str | None = None,
        timeout_s: float = REPLY_S,
        expiry_s: float = EXPIRY_S,
    ) -> list[Reply]:
        """Send one command to `device/ID` or `group/NAME`; return the replies.

        One device answers once; of a group, whoever answers within `timeout_s`. A device that
        is away gets the command when it is back within `expiry_s`.

        Raises:
            Unavailable: nobody answered, or the broker is not there.
        """
        command = self._command(audience, body, command_id=command_id, expiry_s=expiry_s)
        topic = self.topics.command(audience)
        replies: dict[str, Reply] = {}
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        reply_topic = self.topics.reply(command.id)
        await self.link.keep([reply_topic], arrived.put_nowait)
        try:
            await self.link.publish(
                topic,
                self._seal(command),
                response_topic=reply_topic,
                correlation=command.id.encode(),
                expiry_s=expiry_s,
            )
            async with asyncio.timeout(timeout_s):
                while not (replies and audience.startswith("device/")):
                    reply = _read(Reply, (await arrived.get()).payload)
                    if reply is not None and reply.id == command.id:
                        replies[reply.device] = reply
        except TimeoutError:
            if not replies:
                kind, _, name = audience.partition("/")
                raise Unavailable(
                    f"cannot ask {kind} {name}: no answer in {timeout_s:g} s"
                ) from None
        finally:
            self.link.unsubscribe([reply_topic])
        return [replies[device] for device in sorted(replies)]

    async def statuses(self) -> list[Status]:
        """The last status of every device that ever reported one."""
        messages = await shelf.retained_under(self.link, self.topics.every("status"))
        read = (_read(Status, message.payload) for message in messages)
        return [status for status in read if status is not None]

    async def events(self, *, started: Callable[[], None] | None = None) -> AsyncIterator[Event]:
        """Every event of every device as it comes, across reconnects, without end.

        `started` is called once the events are subscribed.
        """
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        topic_filter = self.topics.every("event")
        await self.link.keep([topic_filter], arrived.put_nowait)
        try:
            if started is not None:
                started()
            while True:
                event = _read(Event, (await arrived.get()).payload)
                if event is not None:
                    yield event
        finally:
            self.link.unsubscribe([topic_filter])

    def _command(
        self, audience: str, body: Body, *, command_id: str | None, expiry_s: float
    ) -> Command:
        now_s = time.time()
        return Command(
            id=command_id or str(uuid.uuid4()),
            audience=audience,
            issued_at_s=now_s,
            expires_at_s=now_s + expiry_s,
            body=body,
        )

    def _seal(self, command: Command) -> bytes:
        assert self.signer is not None, "commands need a signer"
        return trust.seal(command.to_json(), payload_type=trust.COMMAND, by=self.signer)


async def follow(
    events: AsyncIterator[Event],
    *,
    deployment: str,
    devices: set[str],
    seen: Callable[[Event], None],
) -> dict[str, Event]:
    """Follow one deployment on some devices to its end; return each device's last event.

    `deployment` is the id of the command that began it; `seen` gets every event of it.
    """
    ends: dict[str, Event] = {}
    async for event in events:
        if event.deployment != deployment or event.device not in devices:
            continue
        seen(event)
        # Improving goes on after the original went live; the state events tell where it stands.
        if event.kind == "state" and (event.state or "").lower() in END_STATES:
            ends[event.device] = event
            if set(ends) == devices:
                break
    return ends


_Heard = TypeVar("_Heard", Reply, Status, Event)


def _read(kind: type[_Heard], payload: bytes) -> _Heard | None:
    """Read what a device says; what cannot be read (a newer agent?) is passed over, loudly."""
    if not payload:
        return None
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        log.warning("cannot read a %s: %s", kind.__name__, error)
        return None
