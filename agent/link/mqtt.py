"""The link to the broker: stays connected, subscribes again, publishes (MQTT 5, OASIS).

The packets are connection.py's; uptime.py follows a connection from its start to its end, and
when to connect again is backoff.py's.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from agent.config import Broker
from agent.errors import BadInput, Refused, Unavailable
from agent.link import backoff, pending
from agent.link.connection import Connection
from agent.link.messages import Code, Handler, Hears, Will
from agent.link.subscriptions import Subscriptions, by_eights
from agent.link.uptime import ACK_S, Uptime

_STOP_S = 2.0
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
        self._broker = broker
        self._uniform = uniform
        self._subscriptions = Subscriptions()
        self._publishes = pending.Pending()
        self._acks = pending.Pending()
        self._stopping = asyncio.Event()
        self._staying: asyncio.Task[None] | None = None
        self._uptime = Uptime(where=self.where, stand=self._stand, on_up=on_connected)
        self._connection = Connection(
            broker,
            client_id=client_id,
            will=will,
            clean=clean,
            hears=Hears(
                up=self._uptime.up,
                down=self._uptime.down,
                message=self._subscriptions.deliver,
                published=self._published,
                subscribed=self._subscribed,
            ),
        )

    @property
    def online(self) -> bool:
        """Whether the broker is connected and the standing filters are subscribed."""
        return self._uptime.online.is_set()

    @property
    def connects(self) -> int:
        """How often the link has come up; after a change, subscriptions may be gone."""
        return self._uptime.connects

    @property
    def takeovers(self) -> int:
        """How often another client has taken our session over."""
        return self._uptime.takeovers

    async def start(self) -> None:
        """Begin to connect, and stay connected until `stop`; returns at once."""
        trying = backoff.keep_trying(
            self._one_connection,
            broker=self._broker,
            stopping=self._stopping,
            uniform=self._uniform,
        )
        self._staying = asyncio.get_running_loop().create_task(trying, name="mqtt link")

    async def stop(self) -> None:
        """Say goodbye (so the will is not published) and end; pending publishes fail."""
        self._stopping.set()
        self._connection.say_goodbye()
        if self._staying is not None:
            _, late = await asyncio.wait({self._staying}, timeout=_STOP_S)
            if late:  # the goodbye cannot leave: the connection has stalled
                self._connection.shut_socket()
                await asyncio.wait(late)
        await self._uptime.end()
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
            # Not asyncio.wait_for: before Python 3.12 it may swallow a cancellation.
            async with asyncio.timeout(timeout_s):
                await self._uptime.online.wait()
        except TimeoutError:
            why = self._uptime.why_down or f"no connection in {timeout_s:g} s"
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
        most_bytes = self._uptime.most_bytes
        if most_bytes is not None and len(payload) + _HEADER_BYTES > most_bytes:
            raise BadInput(
                f"cannot publish {len(payload)} bytes to {topic}: "
                f"broker {self.where} takes packets of at most {most_bytes}"
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

    async def keep(self, filters: Sequence[str], handler: Handler, *, late: bool = False) -> None:
        """Subscribe now (where connected) and again on every connect, until `unsubscribe`.

        `late`: the handler calls `message.acknowledge()` itself, once the message needs no
        sending again; until then the broker keeps it, also across a restart of this process.

        Raises:
            Unavailable: connected, and the broker denied one of them.
        """
        self._subscriptions.add(filters, handler, standing=True, late=late)
        if self.online:
            await self._subscribe(filters)

    async def subscribe(self, filters: Sequence[str], handler: Handler) -> None:
        """Subscribe for this connection only; `handler` gets each message on the event loop.

        What is retained comes anew, also where the session on the broker holds the filter.

        Raises:
            Unavailable: not connected, connection lost, no answer in 10 s, or denied.
        """
        self._check_online(f"subscribe to {filters[0]}")
        self._subscriptions.add(filters, handler)
        if self._uptime.resumed:
            self._forget_on_broker(filters)
        await self._subscribe(filters)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Forget filters here, and tell the broker where it is connected.

        Nobody waits for the answer: packets stay in order, and rumqttd gives none for a filter
        that it does not know.
        """
        self._subscriptions.drop(filters)
        if self.online:
            for part in by_eights(filters):
                self._connection.unsubscribe(part)

    # --- On the event loop --------------------------------------------------------------

    async def _one_connection(self) -> backoff.Ended:
        ended = await self._uptime.attempt(self._connection, stopping=self._stopping)
        self._acks.fail_all(ended.why)
        # A message that the broker refuses by hanging up must not be sent for ever.
        if ended.reached and self._publishes.lost_once() > _MOST_LOSSES:
            self._connection.drop_unsent()
            self._publishes.fail_all(ended.why)
        return ended

    async def _stand(self) -> bool:
        """Subscribe the standing filters; whether the broker has taken them all."""
        standing = self._subscriptions.standing
        try:
            if standing:
                await self._subscribe(standing)
        except Unavailable as error:
            backoff.log.error("%s; trying again", error)
            return False
        return True

    async def _subscribe(self, filters: Sequence[str]) -> None:
        answers = []
        for part in by_eights(filters):
            try:
                mid = self._connection.subscribe(part)
            except Unavailable as error:
                self._acks.fail_all(str(error))
                raise
            answers.append(self._acks.expect(mid, what=f"subscribe to {', '.join(part)}"))
        if answers and not await pending.all_of(answers, within_s=ACK_S):
            raise Unavailable(
                f"cannot subscribe to {filters[0]}: broker {self.where} did not answer "
                f"in {ACK_S:g} s"
            )

    def _forget_on_broker(self, filters: Sequence[str]) -> None:
        # rumqttd sends retained messages only for a subscription that is new to the session, and
        # in a resumed session it unsubscribes only what was subscribed on this connection.
        for part in by_eights(filters):
            with contextlib.suppress(Unavailable):  # the subscribe that follows will tell
                self._connection.subscribe(part, retained=False)
            self._connection.unsubscribe(part)

    def _check_online(self, what: str) -> None:
        if not self.online:
            why = f" ({self._uptime.why_down})" if self._uptime.why_down else ""
            raise Unavailable(f"cannot {what}: broker {self.where} is not connected{why}")

    def _published(self, mid: int, codes: Sequence[Code]) -> None:
        final = any(code.is_final for code in codes)
        kind = Refused if final else Unavailable
        self._publishes.settle(mid, failure=self._failure(codes), kind=kind)

    def _subscribed(self, mid: int, codes: Sequence[Code]) -> None:
        self._acks.settle(mid, failure=self._failure(codes))

    def _failure(self, codes: Sequence[Code]) -> str | None:
        bad = ", ".join(str(code) for code in codes if code.is_failure)
        return f"broker {self.where} answered {bad}" if bad else None
