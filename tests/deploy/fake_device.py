"""A small true device on a real broker: verifies commands, answers and tells of a deployment.

It is for the operator's side: no store, no server; `story` is the states that it will report.
"""

import asyncio
import time
from dataclasses import dataclass, field

from securesystemslib.signer import Key

from agent.config import Broker
from agent.errors import TrimtabError
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.protocol import commands, trust
from agent.protocol.commands import Command
from agent.protocol.events import Event, Reply, Status
from agent.protocol.topics import Topics


@dataclass
class FakeDevice:
    """One device in group `lab`. Use it in an `async with` block."""

    broker: Broker
    name: str
    keys: tuple[Key, ...]
    story: tuple[tuple[str, str], ...] = ()
    topics: Topics = field(default_factory=Topics)
    obeyed: list[Command] = field(default_factory=list)

    async def __aenter__(self) -> "FakeDevice":
        self.link = Link(self.broker, client_id=self.name)
        audiences = (f"device/{self.name}", "group/lab")
        self._tasks: list[asyncio.Task[None]] = []
        await self.link.keep([self.topics.command(each) for each in audiences], self._hear)
        await self.link.start()
        await self.link.connected(15)
        status = Status(device=self.name, online=True, at_s=time.time(), agent_version="0.1.0")
        await self.link.publish(self.topics.status(self.name), status.to_json(), retain=True)
        return self

    async def __aexit__(self, *details: object) -> None:
        await asyncio.gather(*self._tasks)
        await self.link.stop()

    def _hear(self, message: Message) -> None:
        self._tasks.append(asyncio.create_task(self._obey(message), name="obey"))

    async def _obey(self, message: Message) -> None:
        assert message.response_topic is not None
        try:
            payload = trust.open_sealed(message.payload, payload_type=trust.COMMAND, keys=self.keys)
        except TrimtabError as error:
            reply = Reply(id="unknown", device=self.name, outcome="refused", message=str(error))
            await self._reply(message, reply)
            return
        command = commands.parse(payload)
        assert message.topic == self.topics.command(command.audience)
        self.obeyed.append(command)
        if self.story and self.story[0][0] == "refuse at once":
            answer = Reply(
                id=command.id, device=self.name, outcome="refused", message=self.story[0][1]
            )
            await self._reply(message, answer)
            return
        result = {"serves": ["net@1"]} if command.body.kind == "describe" else {}
        # The first events may overtake the reply.
        for number, (state, why) in enumerate(self.story):
            if number == 1:
                await self._reply(message, self._accepted(command, result))
            event = Event(
                device=self.name, at_s=time.time(), kind="state", model="net", version=1,
                deployment=command.id, state=state, message=why,
            )  # fmt: skip
            await self.link.publish(self.topics.event(self.name), event.to_json())
        if not self.story:
            await self._reply(message, self._accepted(command, result))

    def _accepted(self, command: Command, result: dict[str, object]) -> Reply:
        return Reply(id=command.id, device=self.name, outcome="accepted", result=result)

    async def _reply(self, message: Message, reply: Reply) -> None:
        assert message.response_topic is not None
        await self.link.publish(
            message.response_topic, reply.to_json(), correlation=message.correlation
        )
