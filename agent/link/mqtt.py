"""The link to the broker: stays connected, subscribes, publishes; the only importer of paho.

MQTT 5 (OASIS). While connected, paho's one network thread does nothing but hand over to the
event loop; whether and when to connect again is decided in backoff.py, not by paho.
"""

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config import Broker
from agent.errors import BadConfig, BadInput, Unavailable
from agent.link import backoff, pending

FILTERS_PER_SUBSCRIBE = 8
"""AWS IoT Core takes no more in one packet."""
_IN_FLIGHT = 10
"""HiveMQ's default Receive Maximum, the lowest among the brokers we know."""
_ACK_S = 10.0
_STOP_S = 2.0
_MOST_LOSSES = 3
_SESSION_TAKEN_OVER = 0x8E
_HEADER_BYTES = 512
"""Room for topic and properties beside a payload."""


@dataclass(frozen=True)
class Message:
    """One message from the broker. `retain`: it was stored before we subscribed."""

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when we are gone without a goodbye."""

    topic: str
    payload: bytes


Handler = Callable[[Message], None]


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
        self._network_thread: threading.Thread | None = None
        self._why_down = ""
        self._most_bytes: int | None = None
        self._resumed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client = _client(broker, client_id=client_id, will=will, clean=clean)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_suback
        self._client.on_socket_open = _no_delay

    # --- For its users ------------------------------------------------------------------

    @property
    def online(self) -> bool:
        """Whether the broker is connected and the standing filters are subscribed."""
        return self._online.is_set()

    async def start(self) -> None:
        """Begin to connect, and stay connected until `stop`; returns at once."""
        self._loop = asyncio.get_running_loop()
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
        self._client.disconnect()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STOP_S)
            if late:  # the goodbye cannot leave: the connection has stalled
                self._shut_socket()
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
            BadInput: it is larger than the broker's Maximum Packet Size.
        """
        self._check_online(f"publish to {topic}")
        if self._most_bytes is not None and len(payload) + _HEADER_BYTES > self._most_bytes:
            raise BadInput(
                f"cannot publish {len(payload)} bytes to {topic}: "
                f"broker {self.where} takes packets of at most {self._most_bytes}"
            )
        properties = _properties(
            PacketTypes.PUBLISH,
            ResponseTopic=response_topic,
            CorrelationData=correlation,
            MessageExpiryInterval=None if expiry_s is None else max(1, round(expiry_s)),
        )
        sent = self._client.publish(topic, payload, qos, retain, properties)
        # Not connected any more: paho keeps it and sends it on the next connection.
        if sent.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):
            raise Unavailable(f"cannot publish to {topic}: {paho.error_string(sent.rc)}")
        if qos:
            await self._publishes.expect(sent.mid, what=f"publish to {topic}")

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
                self._client.unsubscribe(part)

    # --- On the event loop --------------------------------------------------------------

    async def _one_connection(self) -> backoff.Ended:
        """Connect once and follow the connection to its end."""
        gone = self._gone = asyncio.get_running_loop().create_future()
        self._network_thread = self._came_up_s = None
        try:
            await asyncio.to_thread(self._client.reconnect)
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be encoded
            self._why_down = str(error)
            return backoff.Ended(str(error))
        self._client.loop_start()
        if self._stopping.is_set():
            self._client.disconnect()
        ended = await self._until_gone(gone)
        self._online.clear()
        self._why_down = ended.why
        self._shut_socket()
        await asyncio.to_thread(self._client.loop_stop)
        self._acks.fail_all(ended.why)
        # A message that the broker refuses by hanging up must not be sent for ever.
        if self._publishes.lost_once() > _MOST_LOSSES:
            self._client.drop_out_messages()
            self._publishes.fail_all(ended.why)
        return ended

    async def _until_gone(self, gone: "asyncio.Future[backoff.Ended]") -> backoff.Ended:
        patience_s = _ACK_S
        while True:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(gone), 1.0)
            patience_s -= 1.0
            thread = self._network_thread
            # paho's thread dies without a word when a damaged packet makes its parser raise.
            if thread is not None and not thread.is_alive():
                self._down("a packet that cannot be parsed", taken_over=False)
            elif thread is None and patience_s <= 0:
                self._down(f"no CONNACK in {_ACK_S:g} s", taken_over=False)

    async def _greet(self) -> None:
        """After each CONNACK: the standing filters, then everybody who waits for `online`."""
        gone = self._gone
        if self._standing:
            try:
                await self._subscribe(tuple(self._standing))
            except Unavailable as error:
                backoff.log.error("%s", error)
        if gone is None or gone is not self._gone or gone.done():
            return
        self.connects += 1
        self._online.set()
        backoff.log.info("connected to broker %s", self.where)
        if self._on_connected is not None:
            self._on_connected()

    async def _subscribe(self, filters: Sequence[str]) -> None:
        options, answers = SubscribeOptions(qos=1), []
        for part in _by_eights(filters):
            code, mid = self._client.subscribe([(each, options) for each in part])
            if mid is None or code != paho.MQTT_ERR_SUCCESS:
                self._acks.fail_all(paho.error_string(code))
                raise Unavailable(f"cannot subscribe to {part[0]}: {paho.error_string(code)}")
            answers.append(self._acks.expect(mid, what=f"subscribe to {', '.join(part)}"))
        if answers and not await pending.all_of(answers, within_s=_ACK_S):
            raise Unavailable(
                f"cannot subscribe to {filters[0]}: broker {self.where} did not answer "
                f"in {_ACK_S:g} s"
            )

    def _forget_on_broker(self, filters: Sequence[str]) -> None:
        # rumqttd sends retained messages only for a subscription that is new to the session, and
        # in a resumed session it unsubscribes only what was subscribed on this connection.
        nothing_retained = SubscribeOptions(
            qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND
        )
        for part in _by_eights(filters):
            self._client.subscribe([(each, nothing_retained) for each in part])
            self._client.unsubscribe(part)

    def _check_online(self, what: str) -> None:
        if not self.online:
            why = f" ({self._why_down})" if self._why_down else ""
            raise Unavailable(f"cannot {what}: broker {self.where} is not connected{why}")

    def _shut_socket(self) -> None:
        connection: Any = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _deliver(self, message: Message) -> None:
        handler = self._handlers.get(message.topic)
        if handler is None:
            matching = (h for f, h in self._handlers.items() if matches(f, message.topic))
            handler = next(matching, None)
        if handler is not None:
            handler(message)

    def _settle(self, table: pending.Pending, mid: int, codes: Sequence[ReasonCode]) -> None:
        bad = [f"'{code}' (0x{code.value:02X})" for code in codes if code.is_failure]
        failure = f"broker {self.where} answered {', '.join(bad)}" if bad else None
        table.settle(mid, failure=failure)

    def _up(self, properties: Properties | None, *, resumed: bool) -> None:
        self._resumed = resumed
        self._most_bytes = getattr(properties, "MaximumPacketSize", None)
        self._came_up_s = asyncio.get_running_loop().time()
        self._spawn(self._greet(), name="mqtt greeting")

    def _down(self, why: str, *, taken_over: bool) -> None:
        self.takeovers += taken_over
        self._online.clear()
        if self._gone is not None and not self._gone.done():
            now_s = asyncio.get_running_loop().time()
            lasted_s = None if self._came_up_s is None else now_s - self._came_up_s
            self._gone.set_result(backoff.Ended(why, lasted_s, taken_over))

    # --- In paho's network thread: only hand over -----------------------------------------

    def _hand_over(self, call: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call)

    def _on_connect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, data
        if reason.is_failure:
            why = f"refused with '{reason}' (0x{reason.value:02X})"
            self._hand_over(lambda: self._down(why, taken_over=False))
            return
        self._network_thread = threading.current_thread()
        resumed = bool(flags.session_present)
        self._hand_over(lambda: self._up(properties, resumed=resumed))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        del client, data, properties
        by_broker = " by the broker" if flags.is_disconnect_packet_from_server else ""
        why = f"connection lost{by_broker}: {reason}"
        taken_over = reason.value == _SESSION_TAKEN_OVER
        self._hand_over(lambda: self._down(why, taken_over=taken_over))

    def _on_message(self, client: Any, data: Any, raw: paho.MQTTMessage) -> None:
        del client, data
        try:
            topic = raw.topic
        except UnicodeDecodeError:
            return
        response_topic = getattr(raw.properties, "ResponseTopic", None)
        correlation = getattr(raw.properties, "CorrelationData", None)
        message = Message(topic, bytes(raw.payload), bool(raw.retain), response_topic, correlation)
        self._hand_over(lambda: self._deliver(message))

    def _on_publish(
        self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any
    ) -> None:
        del client, data, properties
        self._hand_over(lambda: self._settle(self._publishes, mid, [reason]))

    def _on_suback(
        self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        del client, data, properties
        self._hand_over(lambda: self._settle(self._acks, mid, reasons))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic falls under a filter with wildcards (MQTT 5, 4.7)."""
    return paho.topic_matches_sub(topic_filter, topic)


def _by_eights(filters: Sequence[str]) -> list[list[str]]:
    return [
        list(filters[at : at + FILTERS_PER_SUBSCRIBE])
        for at in range(0, len(filters), FILTERS_PER_SUBSCRIBE)
    ]


def _client(broker: Broker, *, client_id: str, will: Will | None, clean: bool) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
    )
    client.max_inflight_messages_set(_IN_FLIGHT)
    client.username_pw_set(broker.username, broker.password)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    if broker.ca_file is not None:
        files = (broker.ca_file, broker.certificate_file, broker.key_file)
        authority, certificate, key = (None if path is None else str(path) for path in files)
        try:
            client.tls_set(authority, certificate, key)
        except (OSError, ValueError) as error:
            raise BadConfig(f"cannot use TLS with {broker.ca_file}: {error}") from error
    expiry_s = 0 if clean else broker.session_expiry_s
    client.connect_async(
        broker.host,
        broker.port,
        broker.keepalive_s,
        clean_start=clean,
        properties=_properties(PacketTypes.CONNECT, SessionExpiryInterval=expiry_s),
    )
    return client


def _properties(packet_type: int, **values: object) -> Properties:
    properties = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has no types here
    for name, value in values.items():
        if value is not None:
            setattr(properties, name, value)
    return properties


def _no_delay(client: Any, data: Any, connection: Any) -> None:
    # Without it, Nagle and delayed acknowledgements cost 40 ms per window of chunks.
    del client, data
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
