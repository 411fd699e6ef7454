"""The link to the broker: stays connected, subscribes again, publishes (MQTT 5, OASIS).

The packets are connection.py's; when to connect again is backoff.py's.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from agent.config import Broker
from agent.errors import BadInput, Refused, Unavailable
from agent.link import backoff, connection, pending
from agent.link.connection import Connection
from agent.link.messages import Code, Handler, Hears, Message, Will

FILTERS_PER_SUBSCRIBE = 8
"""AWS IoT Core takes no more in one packet."""
_ACK_S = 10.0
_STOP_S = 2.0
_STAND_AGAIN_S = 60.0
_MOST_LOSSES = 3
_HEADER_BYTES = 512
"""Room for topic and properties beside a payload."""


class Link:
    """One client of one broker, used from one event loop.

    A publish that was begun while connected outlives up to three lost connections (it is sent
    again, so a receiver may see it twice); after that, or when not connected, it fails with
    Unavailable and the caller's spool keeps it. A subscribe does not outlive its connection.
    Standing filters (`keep`) are subscribed again on every connect, before `online` is true.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        will: Will | None = None,
        clean: bool = False,
        on_connected: Callable[[], None] | None = None,
        uniform: backoff.Uniform = random.uniform,
    ) -> None:
        """Prepare; `start` connects. `clean`: keep no session on the broker (operators).

        Raises:
            BadConfig: the TLS files cannot be used.
        """
        self.where = f"{broker.host}:{broker.port}"
        self.connects = 0
        """How often the link has come up; after a change, subscriptions may be gone."""
        self.takeovers = 0
        self._broker = broker
        self._on_connected = on_connected
        self._uniform = uniform
        self._handlers: dict[str, Handler] = {}
        self._standing: dict[str, None] = {}
        self._publishes = pending.Pending()
        self._acks = pending.Pending()
        self._online = asyncio.Event()
        self._stopping = asyncio.Event()
        self._gone: asyncio.Future[backoff.Ended] | None = None
        self._came_up_s: float | None = None
        self._why_down = ""
        self._most_bytes: int | None = None
        self._resumed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection = Connection(
            broker,
            client_id=client_id,
            will=will,
            clean=clean,
            hears=Hears(
                up=self._up,
                down=self._down,
                message=self._deliver,
                published=self._published,
                subscribed=self._subscribed,
            ),
        )

    # --- For its users ------------------------------------------------------------------

    @property
    def online(self) -> bool:
        """Whether the broker is connected and the standing filters are subscribed."""
        return self._online.is_set()

    async def start(self) -> None:
        """Begin to connect, and stay connected until `stop`; returns at once."""
        trying = backoff.keep_trying(
            self._one_connection,
            broker=self._broker,
            stopping=self._stopping,
            uniform=self._uniform,
        )
        self._spawn(trying, name="mqtt link")

    async def stop(self) -> None:
        """Say goodbye (so the will is not published) and end; pending publishes fail."""
        self._stopping.set()
        self._connection.say_goodbye()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            if late:  # the goodbye cannot leave: the connection has stalled
                self._connection.shut_socket()
                await asyncio.wait(late)
        self._publishes.fail_all("the link was stopped")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def connected(self, timeout_s: float) -> None:
        """Wait until `online`.

        Raises:
            Unavailable: not within `timeout_s`; says why the last attempt failed.
        """
        try:
            await asyncio.wait_for(self._online.wait(), timeout_s)
        except TimeoutError:
            why = self._why_down or f"no connection in {timeout_s:g} s"
            raise Unavailable(f"cannot reach broker {self.where}: {why}") from None

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
        expiry_s: float | None = None,
    ) -> None:
        """Send one message and wait for its PUBACK (QoS 0: return at once).

        Raises:
            Unavailable: not connected, or the broker answered with a failure, which is named.
            Refused: the broker will never take it, for example by its access rules.
            BadInput: it is larger than the broker's Maximum Packet Size, or no topic.
        """
        self._check_online(f"publish to {topic}")
        if self._most_bytes is not None and len(payload) + _HEADER_BYTES > self._most_bytes:
            raise BadInput(
                f"cannot publish {len(payload)} bytes to {topic}: "
                f"broker {self.where} takes packets of at most {self._most_bytes}"
            )
        mid = self._connection.publish(
            topic,
            payload,
            qos=qos,
            retain=retain,
            response_topic=response_topic,
            correlation=correlation,
            expiry_s=expiry_s,
        )
        if qos:
            await self._publishes.expect(mid, what=f"publish to {topic}")

    async def keep(self, filters: Sequence[str], handler: Handler) -> None:
        """Subscribe now (where connected) and again on every connect, until `unsubscribe`.

        Raises:
            Unavailable: connected, and the broker denied one of them.
        """
        self._standing |= dict.fromkeys(filters)
        self._handlers |= dict.fromkeys(filters, handler)
        if self.online:
            await self._subscribe(filters)

    async def subscribe(self, filters: Sequence[str], handler: Handler) -> None:
        """Subscribe for this connection only; `handler` gets each message on the event loop.

        What is retained comes anew, also where the session on the broker holds the filter.

        Raises:
            Unavailable: not connected, connection lost, no answer in 10 s, or denied.
        """
        self._check_online(f"subscribe to {filters[0]}")
        self._handlers |= dict.fromkeys(filters, handler)
        if self._resumed:
            self._forget_on_broker(filters)
        await self._subscribe(filters)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Forget filters here, and tell the broker where it is connected.

        Nobody waits for the answer: packets stay in order, and rumqttd gives none for a filter
        that it does not know.
        """
        for each in filters:
            self._standing.pop(each, None)
            self._handlers.pop(each, None)
        if self.online:
            for part in _by_eights(filters):
                self._connection.unsubscribe(part)

    # --- On the event loop --------------------------------------------------------------

    async def _one_connection(self) -> backoff.Ended:
        """Connect once and follow the connection to its end."""
        gone = self._gone = asyncio.get_running_loop().create_future()
        self._came_up_s = None
        try:
            await self._connection.open()
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
            self._why_down = str(error)
            return backoff.Ended(str(error))
        if self._stopping.is_set():
            self._connection.say_goodbye()
        ended = await self._until_gone(gone)
        self._online.clear()
        self._why_down = ended.why
        await self._connection.close()
        self._acks.fail_all(ended.why)
        # A message that the broker refuses by hanging up must not be sent for ever.
        if self._publishes.lost_once() > _MOST_LOSSES:
            self._connection.drop_unsent()
            self._publishes.fail_all(ended.why)
        return ended

    async def _until_gone(self, gone: "asyncio.Future[backoff.Ended]") -> backoff.Ended:
        patience_s = _ACK_S
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(gone), 1.0)
            patience_s -= 1.0
            if self._connection.dead:
                self._down("a packet that cannot be parsed")
            elif not self._connection.acknowledged and patience_s <= 0:
                self._down(f"no CONNACK in {_ACK_S:g} s")

    async def _greet(self) -> None:
        """After each CONNACK: the standing filters, then everybody who waits for `online`."""
        gone = self._gone
        standing = await self._stand()
        if gone is None or gone is not self._gone or gone.done():
            return
        self.connects += 1
        self._online.set()
        backoff.log.info("connected to broker %s", self.where)
        if self._on_connected is not None:
            self._on_connected()
        while not standing:  # nobody would hear commands until the next connection
            await asyncio.wait({gone}, timeout=_STAND_AGAIN_S)
            if gone.done():
                return
            standing = await self._stand()

    async def _stand(self) -> bool:
        """Subscribe the standing filters; whether the broker has taken them all."""
        if self._standing:
            try:
                await self._subscribe(tuple(self._standing))
            except Unavailable as error:
                backoff.log.error("%s; trying again in %g s", error, _STAND_AGAIN_S)
                return False
        return True

    async def _subscribe(self, filters: Sequence[str]) -> None:
        answers = []
        for part in _by_eights(filters):
            try:
                mid = self._connection.subscribe(part)
            except Unavailable as error:
                self._acks.fail_all(str(error))
                raise
            answers.append(self._acks.expect(mid, what=f"subscribe to {', '.join(part)}"))
        if answers and not await pending.all_of(answers, within_s=_ACK_S):
            raise Unavailable(
                f"cannot subscribe to {filters[0]}: broker {self.where} did not answer "
                f"in {_ACK_S:g} s"
            )

    def _forget_on_broker(self, filters: Sequence[str]) -> None:
        # rumqttd sends retained messages only for a subscription that is new to the session, and
        # in a resumed session it unsubscribes only what was subscribed on this connection.
        for part in _by_eights(filters):
            with contextlib.suppress(Unavailable):  # the subscribe that follows will tell
                self._connection.subscribe(part, retained=False)
            self._connection.unsubscribe(part)

    def _check_online(self, what: str) -> None:
        if not self.online:
            why = f" ({self._why_down})" if self._why_down else ""
            raise Unavailable(f"cannot {what}: broker {self.where} is not connected{why}")

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _deliver(self, message: Message) -> None:
        handler = self._handlers.get(message.topic)
        if handler is None:
            matching = (
                h for f, h in self._handlers.items() if connection.matches(f, message.topic)
            )
            handler = next(matching, None)
        if handler is not None:
            handler(message)

    def _published(self, mid: int, codes: Sequence[Code]) -> None:
        final = any(code.is_final for code in codes)
        kind = Refused if final else Unavailable
        self._publishes.settle(mid, failure=self._failure(codes), kind=kind)

    def _subscribed(self, mid: int, codes: Sequence[Code]) -> None:
        self._acks.settle(mid, failure=self._failure(codes))

    def _failure(self, codes: Sequence[Code]) -> str | None:
        bad = ", ".join(str(code) for code in codes if code.is_failure)
        return f"broker {self.where} answered {bad}" if bad else None

    def _up(self, resumed: bool, most_bytes: int | None) -> None:
        self._resumed = resumed
        self._most_bytes = most_bytes
        self._came_up_s = asyncio.get_running_loop().time()
        self._spawn(self._greet(), name="mqtt greeting")

    def _down(self, why: str, taken_over: bool = False) -> None:
        self.takeovers += taken_over
        self._online.clear()
        if self._gone is not None and not self._gone.done():
            now_s = asyncio.get_running_loop().time()
            lasted_s = None if self._came_up_s is None else now_s - self._came_up_s
            self._gone.set_result(backoff.Ended(why, lasted_s, taken_over))


def _by_eights(filters: Sequence[str]) -> list[list[str]]:
    return [
        list(filters[at : at + FILTERS_PER_SUBSCRIBE])
        for at in range(0, len(filters), FILTERS_PER_SUBSCRIBE)
    ]
