"""Real MQTT brokers on a port of their own: started, stopped, killed and started again.

`iotcore_broker` needs nothing but the package (rumqttd in a wheel): it keeps what is retained
in memory, so a restart forgets it. `mosquitto_broker` needs the binary and can persist.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.config import Broker as BrokerSettings

START_S = 60.0
_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 163840
max_inflight_count = 100
"""
_MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous {anonymous}
persistence {persistence}
persistence_location {folder}/
autosave_interval 1
autosave_on_changes true
{extra}
"""


@dataclass
class RunningBroker:
    """One broker process; `port` stays its own across restarts."""

    command: list[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def settings(self, **changes: object) -> BrokerSettings:
        """How to connect to it, with quick reconnects."""
        quick = {"reconnect_least_s": 0.05, "reconnect_most_s": 0.4}
        return BrokerSettings.model_validate(
            {"host": "127.0.0.1", "port": self.port, **quick, **changes}
        )

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 0.2),
            ):
                return
            time.sleep(0.02)
        raise RuntimeError(f"cannot start {self.command[0]}: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Ask it to end, and wait; a broker that persists writes its file now."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process = None


def free_port() -> int:
    """A TCP port of the loopback interface that is free now, and asked for by nobody else.

    Below the ports that the kernel gives to outgoing connections, and in a range of this test
    process's own: tests that run side by side take no port from one another.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw-1").removeprefix("gw")
    first = 15_000 + 4_000 * (int(worker) + 1 if worker.lstrip("-").isdigit() else 0)
    for _ in range(200):
        port = first + random.randrange(4_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no free port from {first} to {first + 3_999}")


@contextlib.contextmanager
def iotcore_broker(port: int | None = None) -> Iterator[RunningBroker]:
    """rumqttd with an MQTT 5 listener that takes payloads up to 160 KiB."""
    with tempfile.TemporaryDirectory(prefix="iotcore-") as folder:
        config = Path(folder, "rumqttd.toml")
        number = port or free_port()
        config.write_text(_IOTCORE.format(port=number))
        command = [
            *(sys.executable, "-m", "iotcore", "--config", str(config)),
            *("--log-level", "CRITICAL"),
        ]
        yield from _run(RunningBroker(command, number, Path(folder, "log")))


def mosquitto_path() -> str | None:
    """Where the mosquitto binary is, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


needs_mosquitto = pytest.mark.skipif(
    mosquitto_path() is None, reason="needs mosquitto: apt-get install mosquitto"
)


@contextlib.contextmanager
def mosquitto_broker(
    *, persistence: bool = False, anonymous: bool = True, acl: str = "", extra: str = ""
) -> Iterator[RunningBroker]:
    """Mosquitto; `acl` is the text of an access file, `extra` more of its configuration."""
    binary = mosquitto_path()
    if binary is None:
        raise RuntimeError("cannot start mosquitto: it is not installed")
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as folder:
        # Started as root, it becomes the user mosquitto, who must be able to write here.
        Path(folder).chmod(0o777)
        config = Path(folder, "mosquitto.conf")
        if acl:
            rules = Path(folder, "acl")
            rules.write_text(acl)
            rules.chmod(0o644)
            extra += f"\nacl_file {rules}"
        number = free_port()
        config.write_text(
            _MOSQUITTO.format(
                port=number,
                anonymous=str(anonymous).lower(),
                persistence=str(persistence).lower(),
                folder=folder,
                extra=extra,
            )
        )
        yield from _run(RunningBroker([binary, "-c", str(config)], number, Path(folder, "log")))


def _run(broker: RunningBroker) -> Iterator[RunningBroker]:
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
