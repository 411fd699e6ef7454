"""One MQTT 5 connection at a time, as paho makes it; only this and dialling.py import paho.

While connected, paho's one network thread does nothing but hand over to the event loop; whether
and when to connect again is decided in backoff.py, not by paho.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.config import Broker
from agent.errors import BadInput, Unavailable
from agent.link import dialling
from agent.link.handover import Acknowledgements, HandOver
from agent.link.messages import Code, Hears, Message, Will

_SESSION_TAKEN_OVER = 0x8E


class NotConnected(Unavailable):
    """The connection has just ended; whoever waits for the next one can go on."""


class Connection:
    """A client of one broker: packets out, and what comes in is told to `hears`."""

    def __init__(
        self, broker: Broker, *, client_id: str, will: Will | None, clean: bool, hears: Hears
    ) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            BadConfig: the TLS files cannot be used.
        """
        self._hears = hears
        self._hand_over = HandOver()
        self._acknowledgements = Acknowledgements(self._acknowledge)
        self._thread: threading.Thread | None = None
        self._client = dialling.client(broker, client_id=client_id, will=will, clean=clean)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_suback
        self._client.on_socket_open = _no_delay

    async def open(self) -> None:
        """Connect the socket and send CONNECT; `hears` tells what the broker answers.

        Raises:
            OSError, ValueError: no connection; a host name that cannot be encoded.
        """
        self._thread = None
        self._hand_over.attach()
        self._acknowledgements.forget()
        await asyncio.to_thread(self._client.reconnect)
        self._client.loop_start()

    async def close(self) -> None:
        """Give the socket up and wait for the network thread."""
        self.shut_socket()
        await asyncio.to_thread(self._client.loop_stop)

    def say_goodbye(self) -> None:
        """Send DISCONNECT, so that the will is not published."""
        self._client.disconnect()

    def shut_socket(self) -> None:
        """End the connection under paho's hands, although it may have stalled."""
        connection: Any = self._client.socket()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def acknowledged(self) -> bool:
        """Whether a CONNACK has come."""
        return self._thread is not None

    @property
    def dead(self) -> bool:
        """paho's thread dies without a word when a damaged packet makes its parser raise."""
        return self._thread is not None and not self._thread.is_alive()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        response_topic: str | None,
        correlation: bytes | None,
        expiry_s: float | None,
    ) -> int:
        """Send one message; the id under which `hears.published` will tell of it.

        Raises:
            Unavailable: paho has no room for it.
            BadInput: nothing can be published under that topic.
        """
        properties = dialling.properties(
            PacketTypes.PUBLISH,
            ResponseTopic=response_topic,
            CorrelationData=correlation,
            MessageExpiryInterval=None if expiry_s is None else max(1, round(expiry_s)),
        )
        try:
            sent = self._client.publish(topic, payload, qos, retain, properties)
        except ValueError as error:
            raise BadInput(f"cannot publish to {topic[:80]!r}: {error}") from error
        # Not connected any more: paho keeps it and sends it on the next connection.
        if sent.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_NO_CONN):
            raise Unavailable(f"cannot publish to {topic}: {paho.error_string(sent.rc)}")
        return sent.mid

    def drop_unsent(self) -> None:
        """Forget every message that no broker has acknowledged."""
        self._client.drop_out_messages()

    def subscribe(self, filters: Sequence[str], *, retained: bool = True) -> int:
        """Send one SUBSCRIBE; the id under which `hears.subscribed` will tell of it.

        Raises:
            Unavailable: it could not be sent.
        """
        handling = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        if not retained:
            handling = SubscribeOptions.RETAIN_DO_NOT_SEND
        options = SubscribeOptions(qos=1, retainHandling=handling)
        code, mid = self._client.subscribe([(each, options) for each in filters])
        if code in {paho.MQTT_ERR_NO_CONN, paho.MQTT_ERR_CONN_LOST}:
            raise NotConnected(f"cannot subscribe to {filters[0]}: {paho.error_string(code)}")
        if mid is None or code != paho.MQTT_ERR_SUCCESS:
            raise Unavailable(f"cannot subscribe to {filters[0]}: {paho.error_string(code)}")
        return mid

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Send one UNSUBSCRIBE; nobody is told of its answer."""
        self._client.unsubscribe(list(filters))

    # --- In paho's network thread: only hand over -----------------------------------------

    def _on_connect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, data
        if reason.is_failure:
            why = f"refused with {_code(reason)}"
            self._hand_over.call(lambda: self._hears.down(why, False))
            return
        self._thread = threading.current_thread()
        resumed = bool(flags.session_present)
        most_bytes = getattr(properties, "MaximumPacketSize", None)
        self._hand_over.call(lambda: self._hears.up(resumed, most_bytes))

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        del client, data, properties
        by_broker = " by the broker" if flags.is_disconnect_packet_from_server else ""
        why = f"connection lost{by_broker}: {reason}"
        taken_over = reason.value == _SESSION_TAKEN_OVER
        self._hand_over.call(lambda: self._hears.down(why, taken_over))

    def _on_message(self, client: Any, data: Any, raw: paho.MQTTMessage) -> None:
        del client, data
        self._hand_over.message(lambda: self._hear(raw))

    def _on_publish(
        self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any
    ) -> None:
        del client, data, properties
        self._hand_over.call(lambda: self._hears.published(mid, (_code(reason),)))

    def _on_suback(
        self, client: Any, data: Any, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        del client, data, properties
        self._hand_over.call(lambda: self._hears.subscribed(mid, tuple(map(_code, reasons))))

    # --- On the event loop ----------------------------------------------------------------

    def _hear(self, raw: paho.MQTTMessage) -> None:
        acknowledge = self._acknowledgements.expect(raw.mid) if raw.qos else _nothing
        try:
            topic = raw.topic
        except UnicodeDecodeError:
            acknowledge()
            return
        self._hears.message(
            Message(
                topic,
                bytes(raw.payload),
                bool(raw.retain),
                getattr(raw.properties, "ResponseTopic", None),
                getattr(raw.properties, "CorrelationData", None),
                acknowledge,
            )
        )

    def _acknowledge(self, packet_id: int) -> None:
        self._client.ack(packet_id, 1)


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a topic falls under a filter with wildcards (MQTT 5, 4.7)."""
    return paho.topic_matches_sub(topic_filter, topic)


def _nothing() -> None:
    """A message of QoS 0 needs no acknowledgement."""


def _code(reason: ReasonCode) -> Code:
    return Code(reason.value, str(reason))


def _no_delay(client: Any, data: Any, connection: Any) -> None:
    # Without it, Nagle and delayed acknowledgements cost 40 ms per window of chunks.
    del client, data
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
