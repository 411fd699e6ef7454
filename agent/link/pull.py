"""Pull by subscription: asks the broker for chunks that it retains, a few at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from agent.errors import Unavailable
from agent.link.connection import NotConnected
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.link.pace import Pace
from agent.protocol import chunking
from agent.protocol.topics import Topics

_LOOK_AGAIN_S = 0.5
_TOGETHER = 8
"""Filters in one SUBSCRIBE, as many as every broker takes."""


async def blobs(
    link: Link,
    *,
    topics: Topics,
    names: Sequence[str],
    timeout_s: float,
    window: int = 16,
    pace: Pace | None = None,
) -> AsyncGenerator[tuple[str, bytes], None]:
    """Yield (sha256 from the topic, payload as it came) for each name, in any order.

    At most `window` topics are subscribed at any time, and each only until its chunk is here:
    this bounds what may wait in memory, whatever anybody publishes. A connection that is lost
    midway is waited for, and what is missing is asked for again. What was retained is yielded
    unchecked; of what is published just now only what fits its name.

    Raises:
        Unavailable: nothing came for `timeout_s`; says how many are missing. Or denied.
    """
    pull = _Pull(link, topics, names, window=window, timeout_s=timeout_s, pace=pace)
    asking = asyncio.create_task(pull.keep_asking(), name="asking for chunks")
    try:
        while not pull.done:
            message = await pull.next_message(asking)
            if message is not None:
                yield topics.blob_name(message.topic), message.payload
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        pull.forget_all()


class _Pull:
    """What is wanted, what was asked for on the connection of now, and what has arrived."""

    def __init__(
        self,
        link: Link,
        topics: Topics,
        names: Sequence[str],
        *,
        window: int,
        timeout_s: float,
        pace: Pace | None,
    ) -> None:
        self._link, self._window, self._timeout_s, self._pace = link, window, timeout_s, pace
        self._wanted = deque(topics.blob(name) for name in dict.fromkeys(names))
        self._count = len(self._wanted)
        together = _TOGETHER if pace is None else pace.at_once(chunking.CHUNK_BYTES)
        self._together = min(together, _TOGETHER, window)
        self._asked: dict[str, None] = {}
        self._held: set[str] = set()
        """Subscribed, although the chunk is here: forgotten eight at a time."""
        self._asked_on: int | None = None
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()
        self._room = asyncio.Event()
        self._room.set()
        self._restart_deadline()

    @property
    def done(self) -> bool:
        """Whether everything has been handed out."""
        return not self._wanted and not self._asked and self._arrived.empty()

    async def next_message(self, asking: "asyncio.Task[None]") -> Message | None:
        """The next chunk; None where it is time to look at the connection again."""
        try:
            if self._arrived.empty():
                # Not asyncio.wait_for: before Python 3.12 it may swallow a cancellation.
                async with asyncio.timeout(_LOOK_AGAIN_S):
                    message = await self._arrived.get()
            else:
                message = self._arrived.get_nowait()
        except TimeoutError:
            if asking.done():
                asking.result()
            self._check_deadline()
            self._room.set()
            return None
        self._restart_deadline()
        self._room.set()
        return message

    async def keep_asking(self) -> None:
        """Subscribe to what is wanted as room comes; runs until cancelled."""
        while True:
            await self._room.wait()
            self._room.clear()
            if self._asked_on != self._link.connects or not self._link.online:
                await self._begin_anew()
            while self._wanted and self._free >= min(self._together, len(self._wanted)):
                await self._ask(min(self._together, len(self._wanted)))

    def forget_all(self) -> None:
        """Leave no subscription behind."""
        left = [*self._asked, *self._held]
        if left:
            self._link.unsubscribe(left)

    @property
    def _free(self) -> int:
        return self._window - len(self._asked) - self._arrived.qsize()

    async def _begin_anew(self) -> None:
        """On a new connection nothing is subscribed: what was asked for is wanted again."""
        await self._link.connected(self._left_s())
        self._wanted.extendleft(reversed(self._asked))
        self._asked.clear()
        self._held.clear()
        self._asked_on = self._link.connects

    async def _ask(self, count: int) -> None:
        if self._pace is not None:
            await self._pace.wait_for(count * chunking.CHUNK_BYTES)
            self._restart_deadline()
        topics = [self._wanted.popleft() for _ in range(count)]
        self._asked |= dict.fromkeys(topics)
        try:
            await self._link.subscribe(topics, self._take)
        except NotConnected:  # before the link itself has heard of it
            self._room.set()
            await asyncio.sleep(0)
        except Unavailable:
            if self._link.online and self._asked_on == self._link.connects:
                raise  # the broker is there and denies
            self._room.set()
            await asyncio.sleep(0)

    def _take(self, message: Message) -> None:
        # An empty payload is not a chunk: somebody cleared it (MQTT 5, 3.3.1.3).
        if not message.payload or message.topic not in self._asked:
            return
        if not message.retain and not _fits(message):
            return  # anybody may publish there just now; what is retained may still come
        del self._asked[message.topic]
        self._held.add(message.topic)
        self._arrived.put_nowait(message)
        if self._pace is not None:
            self._pace.spend(len(message.payload) - chunking.CHUNK_BYTES)
        if len(self._held) >= _TOGETHER or not self._asked:
            held, self._held = sorted(self._held), set()
            self._link.unsubscribe(held)
        self._room.set()

    def _restart_deadline(self) -> None:
        self._deadline_s = asyncio.get_running_loop().time() + self._timeout_s

    def _left_s(self) -> float:
        return max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    def _check_deadline(self) -> None:
        missing = [*self._asked, *self._wanted]
        resting = self._pace is not None and not self._asked
        if self._left_s() <= 0 and missing and not resting:
            first = missing[0].rpartition("/")[2]
            raise Unavailable(
                f"cannot pull {len(missing)} of {self._count} chunks: broker {self._link.where} "
                f"sent nothing for {self._timeout_s:g} s; missing first {first[:12]}"
            )


def _fits(message: Message) -> bool:
    return chunking.sha256(message.payload) == message.topic.rpartition("/")[2]
