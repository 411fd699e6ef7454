"""A real MQTT 5 broker that needs no installation: rumqttd, out of the iotcore wheel."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from agent.errors import Unavailable
from agent.protocol.chunking import CHUNK_BYTES
from deploy.demo.services import Service, free_port, wait_until_listening

ATTEMPTS = 3
# A publish carries its topic and properties beside a chunk; rumqttd's default is 20 KiB.
MAX_PAYLOAD_BYTES = CHUNK_BYTES + 64 * 1024
_CONFIG = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_payload_bytes}
max_inflight_count = 100
"""


@dataclass(frozen=True)
class Broker:
    """A broker that accepts connections on 127.0.0.1."""

    service: Service
    port: int
    version: str


def start(folder: Path) -> Broker:
    """Start a broker on a free port; its configuration and its log go to `folder`.

    Raises:
        Unavailable: the package is not installed, or it does not come up.
    """
    try:
        version = metadata.version("iotcore")
    except metadata.PackageNotFoundError as error:
        raise Unavailable(
            "cannot start the demo's broker: install the extra, pip install 'trimtab[demo]'"
        ) from error
    for attempt in range(1, ATTEMPTS + 1):
        port = free_port()
        config = folder / f"broker-{attempt}.toml"
        config.write_text(_CONFIG.format(port=port, max_payload_bytes=MAX_PAYLOAD_BYTES))
        service = Service(
            "broker",
            ["iotcore", "--config", str(config), "--log-level", "CRITICAL"],
            log=folder / f"broker-{attempt}.log",
        )
        service.start()
        try:
            wait_until_listening(service, port)
            return Broker(service, port, version)
        except BaseException as error:
            service.stop()
            # Somebody else may have taken the port between our look and its start.
            if attempt == ATTEMPTS or not isinstance(error, Unavailable):
                raise
    raise AssertionError("the last attempt returns or raises")
