"""Commands from the link to the dispatcher, one at a time, and their replies to the spool."""

import asyncio
import logging

from agent.control.announcer import Announcer
from agent.control.dispatcher import Dispatcher
from agent.errors import Corrupt, TrimtabError
from agent.link.messages import Message
from agent.link.spool import Spool
from agent.protocol.events import Reply
from agent.protocol.topics import Topics

log = logging.getLogger(__name__)

_MOST_WAITING = 64


class Inbox:
    """What the fleet asks of this device."""

    def __init__(
        self, dispatcher: Dispatcher, *, topics: Topics, spool: Spool, announcer: Announcer
    ) -> None:
        """Obey through `dispatcher`; answer through `spool`, where `topics` has replies go."""
        self._topics = topics
        self._dispatcher, self._spool, self._announcer = dispatcher, spool, announcer
        self._waiting: asyncio.Queue[Message] = asyncio.Queue(_MOST_WAITING)

    def receive(self, message: Message) -> None:
        """Take one message from the link; never blocks. It is acknowledged once it was answered,
        so that the broker sends it again where the power goes before."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            message.acknowledge()
            self._announcer.trouble(
                "refused", f"cannot take a command: {_MOST_WAITING} wait already"
            )

    async def obey(self) -> None:
        """Handle commands until cancelled."""
        while True:
            message = await self._waiting.get()
            try:
                reply = await self._dispatcher.handle(message.payload)
            except Corrupt as error:
                self._announcer.trouble("corrupt", str(error))
            except TrimtabError as error:
                self._announcer.trouble("refused", str(error))
            except Exception:
                log.exception("a bug in handling a command")
            else:
                self._answer(message, reply)
            message.acknowledge()

    def _answer(self, message: Message, reply: Reply) -> None:
        if not message.response_topic:
            return
        if not self._topics.is_reply(message.response_topic):
            self._announcer.trouble(
                "refused", f"cannot answer to {message.response_topic[:80]!r}: no topic of replies"
            )
            return
        try:
            self._spool.put(
                "reply", message.response_topic, reply.to_json(), correlation=message.correlation
            )
        except TrimtabError as error:
            log.warning("cannot keep a reply: %s", error)
