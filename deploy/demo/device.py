"""The agent of the demo: started as the command that a device runs, in folders of its own."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.demo.services import Service

DEVICE = "demo"
TELEMETRY_INTERVAL_S = 2.0
_SOCKET_ROOT_BYTES = 60
"""The longest folder below which the agent's Unix socket still gets a path that fits."""


@dataclass(frozen=True)
class Folders:
    """Where the demo keeps everything, below one temporary folder."""

    root: Path

    @property
    def state(self) -> Path:
        """The agent's state: chunks, models, records."""
        return self.root / "state"

    @property
    def keys(self) -> Path:
        """The public keys that the agent trusts."""
        return self.root / "keys"

    @property
    def private_key(self) -> Path:
        """The operator's private key."""
        return self.root / "operator.key"

    @property
    def agent_log(self) -> Path:
        """What the agent and its children say."""
        return self.root / "agent.log"

    def make(self) -> None:
        """Make them."""
        self.state.mkdir()
        self.keys.mkdir()


def configuration(folders: Folders, *, broker_port: int) -> str:
    """The agent's TOML file. Ports of 0 are chosen by the kernel and told in its status."""
    settings: dict[str, str | int | float] = {
        "device_id": DEVICE,
        "state_dir": str(folders.state),
        "keys_dir": str(folders.keys),
        "http_port": 0,
        "health_port": 0,
        "telemetry_interval_s": TELEMETRY_INTERVAL_S,
    }
    # A JSON string is a TOML basic string, and numbers are spelled alike.
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join([*lines, "[broker]", 'host = "127.0.0.1"', f"port = {broker_port}", ""])


def environment() -> dict[str, str]:
    """Ours without any TRIMTAB_* variable: settings of a real device must not leak in."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
    # onnxruntime's official Linux wheels report to their maker from 1.29 on, unless told not to;
    # the demo says that it works without network.
    return ours | {"ORT_DISABLE_TELEMETRY": "1"}


def start(folders: Folders, *, broker_port: int) -> Service:
    """Start the agent; it is up once its retained status says so.

    Raises:
        Unavailable: the machine has no process for it.
    """
    config = folders.root / "trimtab.toml"
    config.write_text(configuration(folders, broker_port=broker_port))
    service = Service(
        "agent",
        ["agent", "agent"],
        log=folders.agent_log,
        environment=environment() | _temporary(folders) | {"TRIMTAB_CONFIG": str(config)},
    )
    service.start()
    return service


def _temporary(folders: Folders) -> dict[str, str]:
    """Temporary files of the agent below ours, so that even a killed one leaves none behind."""
    root = str(folders.root)
    return {"TMPDIR": root} if len(os.fsencode(root)) <= _SOCKET_ROOT_BYTES else {}
