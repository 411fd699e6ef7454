"""How a client is made that can connect: its limits, its login, TLS, its will."""

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.config import Broker
from agent.errors import BadConfig
from agent.link.messages import Will

_IN_FLIGHT = 10
"""HiveMQ's default Receive Maximum, the lowest among the brokers we know."""
_RECEIVE_MAXIMUM = 32
"""Messages on the way to us that we have not acknowledged: as many as a pull asks for at once."""
MOST_PACKET_BYTES = 256 * 1024
"""Twice what our messages have. MQTT allows 256 MiB, which a small device would have to hold."""


def client(broker: Broker, *, client_id: str, will: Will | None, clean: bool) -> paho.Client:
    """A client that acknowledges nothing by itself, and does not connect yet.

    Raises:
        BadConfig: the TLS files cannot be used.
    """
    made = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    made.max_inflight_messages_set(_IN_FLIGHT)
    made.username_pw_set(broker.username, broker.password)
    if will is not None:
        made.will_set(will.topic, will.payload, qos=1, retain=True)
    _use_tls(made, broker)
    expiry_s = 0 if clean else broker.session_expiry_s
    made.connect_async(
        broker.host,
        broker.port,
        broker.keepalive_s,
        clean_start=clean,
        properties=properties(
            PacketTypes.CONNECT,
            SessionExpiryInterval=expiry_s,
            MaximumPacketSize=MOST_PACKET_BYTES,
            ReceiveMaximum=_RECEIVE_MAXIMUM,
        ),
    )
    return made


def properties(packet_type: int, **values: object) -> Properties:
    """MQTT 5 properties of one packet; those that are None are left out."""
    made = Properties(packet_type)  # type: ignore[no-untyped-call]  # paho has no types here
    for name, value in values.items():
        if value is not None:
            setattr(made, name, value)
    return made


def _use_tls(made: paho.Client, broker: Broker) -> None:
    if broker.ca_file is None and (broker.certificate_file or broker.key_file):
        raise BadConfig(
            "cannot use certificate_file or key_file without ca_file: no TLS without it"
        )
    if broker.ca_file is not None:
        files = (broker.ca_file, broker.certificate_file, broker.key_file)
        authority, certificate, key = (None if path is None else str(path) for path in files)
        try:
            made.tls_set(authority, certificate, key)
        except (OSError, ValueError) as error:
            raise BadConfig(f"cannot use TLS with {broker.ca_file}: {error}") from error
