"""Pull by subscription: asks the broker for a window of chunks that it retains."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from agent.errors import Unavailable
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.protocol.topics import Topics

_LOOK_AGAIN_S = 0.5


async def blob_window(
    link: Link, *, topics: Topics, names: Sequence[str], timeout_s: float
) -> AsyncIterator[tuple[str, bytes]]:
    """Yield (sha256 from the topic, payload as it came) for each name, in any order.

    Subscribes to just these topics and unsubscribes at the end. A connection that is lost
    midway is waited for, and what is missing is asked for again. The payloads are not checked
    here.

    Raises:
        Unavailable: nothing came for `timeout_s`; says how many are missing. Or denied.
    """
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    missing = {topics.blob(name): name for name in names}
    deadline = _Deadline(timeout_s)
    asked_on = None
    try:
        while missing:
            if asked_on != link.connects or not link.online:
                asked_on = await _ask(link, list(missing), arrived, deadline)
            try:
                message = await asyncio.wait_for(arrived.get(), _LOOK_AGAIN_S)
            except TimeoutError:
                deadline.check(link, missing=list(missing.values()), asked=len(names))
                continue
            # An empty payload is not a chunk: somebody cleared it (MQTT 5, 3.3.1.3).
            if message.payload and message.topic in missing:
                deadline.restart()
                yield missing.pop(message.topic), message.payload
    finally:
        await link.unsubscribe([topics.blob(name) for name in names])


async def _ask(
    link: Link, wanted: list[str], arrived: "asyncio.Queue[Message]", deadline: "_Deadline"
) -> int:
    """Subscribe to the wanted topics on the connection of now; return which one it is."""
    while True:
        await link.connected(deadline.left_s())
        asked_on = link.connects
        try:
            await link.subscribe(wanted, arrived.put_nowait)
        except Unavailable:
            if link.online and asked_on == link.connects:
                raise
            await asyncio.sleep(0)
        else:
            return asked_on


class _Deadline:
    """How long nothing may arrive."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.restart()

    def restart(self) -> None:
        self._at_s = asyncio.get_running_loop().time() + self._timeout_s

    def left_s(self) -> float:
        return max(0.0, self._at_s - asyncio.get_running_loop().time())

    def check(self, link: Link, *, missing: list[str], asked: int) -> None:
        if self.left_s() <= 0:
            raise Unavailable(
                f"cannot pull {len(missing)} of {asked} chunks: broker {link.where} sent nothing "
                f"for {self._timeout_s:g} s; missing first {missing[0][:12]}"
            )
