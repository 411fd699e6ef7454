"""A controller in the test's own event loop: publishes, commands, and remembers every event."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Broker
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.protocol import trust
from agent.protocol.commands import Body, Command, Deploy
from agent.protocol.events import Event, Reply, Status, Telemetry
from agent.protocol.manifest import Manifest
from agent.protocol.topics import Topics
from deploy.publish import Offer, publish

RESTS = {"live", "refused", "failed"}


@dataclass
class Fleet:
    """One operator with a key, and what it has heard."""

    link: Link
    private_key: bytes
    keys: Path
    topics: Topics = field(default_factory=Topics)
    events: list[Event] = field(default_factory=list)
    telemetry: list[Telemetry] = field(default_factory=list)
    status: dict[str, Status] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def publish(self, model: Path, *, name: str = "m", version: int = 1,
                      **offer: Any) -> Manifest:  # fmt: skip
        """Publish a model as an operator would."""
        return await publish(
            Offer(model=model, name=name, version=version, **offer),
            link=self.link, topics=self.topics, by=trust.signer(self.private_key),
        )  # fmt: skip

    async def command(self, body: Body, *, device: str = "pole-7", command_id: str = "") -> str:
        """Send a signed command; return its id."""
        now_s = time.time()
        command = Command(
            id=command_id or uuid.uuid4().hex, audience=f"device/{device}", issued_at_s=now_s,
            expires_at_s=now_s + 600, body=body,
        )  # fmt: skip
        envelope = trust.seal(
            command.to_json(), payload_type=trust.COMMAND, by=trust.signer(self.private_key)
        )
        await self.link.publish(
            self.topics.command(f"device/{device}"), envelope,
            response_topic=self.topics.reply("test"), correlation=command.id.encode(),
        )  # fmt: skip
        return command.id

    async def ask(self, body: Body) -> Reply:
        """Send a command and wait for its reply."""
        command_id = await self.command(body)
        await self.until(lambda: command_id in self.replies or None, what="a reply")
        return self.replies[command_id]

    async def deploy(self, *, model: str = "m", version: int = 1, **order: Any) -> str:
        """Send a deploy command; return its id. Nothing is observed, unless it says so."""
        order.setdefault("observe_minutes", 0)
        return await self.command(Deploy(model=model, version=version, **order))

    async def end_of(self, deployment: str, *, within_s: float = 90.0) -> Event:
        """Wait until a deployment rests."""
        return await self.until(
            lambda: next(
                (e for e in self.events
                 if e.deployment == deployment and e.kind == "state" and e.state in RESTS), None,
            ),
            what=f"the end of deployment {deployment}", within_s=within_s,
        )  # fmt: skip

    async def event(self, accept: Callable[[Event], bool], *, what: str) -> Event:
        """Wait for an event."""
        return await self.until(lambda: next(filter(accept, self.events), None), what=what)

    async def until(self, find: Callable[[], Any], *, what: str, within_s: float = 60.0) -> Any:
        """Wait until `find` returns something, looking again after each message."""
        try:
            async with asyncio.timeout(within_s), self.heard:
                while (found := find()) is None:
                    await self.heard.wait()
                return found
        except TimeoutError:
            told = [f"{e.kind} {e.state}: {e.message}" for e in self.events if e.kind != "progress"]
            raise AssertionError(f"no {what} in {within_s:.0f} s; heard {told[-8:]}") from None

    async def _hear(self, message: Message) -> None:
        leaf = message.topic.rpartition("/")[2]
        async with self.heard:
            if leaf == "event":
                self.events.append(Event.model_validate_json(message.payload))
            elif leaf == "telemetry":
                self.telemetry.append(Telemetry.model_validate_json(message.payload))
            elif leaf == "status":
                status = Status.model_validate_json(message.payload)
                self.status[status.device] = status
            else:
                reply = Reply.model_validate_json(message.payload)
                self.replies[reply.id] = reply
            self.heard.notify_all()


def make_keys(folder: Path) -> tuple[bytes, Path]:
    """A private key, and the folder that holds its public half."""
    private, public = trust.generate()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "operator.pub").write_bytes(public)
    return private, folder


@asynccontextmanager
async def operator(broker_port: int, private_key: bytes, keys: Path) -> AsyncIterator[Fleet]:
    """A connected operator."""
    settings = Broker(
        host="127.0.0.1", port=broker_port, reconnect_least_s=0.1, reconnect_most_s=1.0
    )
    link = Link(settings, client_id=f"operator-{uuid.uuid4().hex[:8]}", clean=True)
    fleet = Fleet(link, private_key, keys)
    hearing: set[asyncio.Task[None]] = set()

    def hear(message: Message) -> None:
        task = asyncio.get_running_loop().create_task(fleet._hear(message))
        hearing.add(task)
        task.add_done_callback(hearing.discard)

    topics = fleet.topics
    async with link:
        await link.connected(20)
        await link.keep(
            [topics.every("event"), topics.every("status"), topics.every("telemetry"),
             topics.reply("test")],
            hear,
        )  # fmt: skip
        yield fleet
