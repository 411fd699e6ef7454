"""A real agent as a child process: started, killed, started again on the same state."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.simulators.broker import free_port

DEADLINE_S = 60.0


T = TypeVar("T")


def until(find: Callable[[], T | None], *, what: str, within_s: float = DEADLINE_S) -> T:
    """Poll until `find` returns something."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = find()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {within_s:.0f} s")


@dataclass
class RunningAgent:
    """One `trimtab agent` with a folder of its own."""

    folder: Path
    environment: dict[str, str]
    http_port: int
    health_port: int
    process: subprocess.Popen[bytes] | None = field(default=None)
    command: tuple[str, ...] = ("-m", "agent", "agent")

    def start(self) -> None:
        log = (self.folder / "agent.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", *self.command],
                env=self.environment, cwd="/", stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def kill(self) -> None:
        """Power cut: the agent dies at once; its children find their pipe closed."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def children(self, module: str) -> list[psutil.Process]:
        """Running children of the agent that execute `module`."""
        assert self.process
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            return [p for p in family if module in " ".join(_command(p))]
        return []

    def get(self, path: str, *, health: bool = False) -> tuple[int, bytes]:
        """One GET on the public or the health port."""
        port = self.health_port if health else self.http_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def infer(self, model: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """One inference in JSON; `inputs` are numpy arrays by name."""
        body = json.dumps(
            {
                "inputs": [
                    {"name": name, "shape": list(array.shape), "data": array.ravel().tolist(),
                     "datatype": {"float32": "FP32", "int32": "INT32"}[str(array.dtype)]}
                    for name, array in inputs.items()
                ]
            }
        ).encode()  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/v2/models/{model}/infer", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        assert response.status == 200, answer
        return dict(answer)

    def ready(self) -> bool:
        """Whether the agent says that every model serves; its death is told at once."""
        if self.process and self.process.poll() is not None:
            raise AssertionError(f"the agent ended: {self.log()[-600:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/ready", health=True)[0] == 200
        return False


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


@contextlib.contextmanager
def running_agent(
    folder: Path, *, broker_port: int, keys: Path, device: str = "pole-7",
    command: tuple[str, ...] = RunningAgent.command, **settings: str,
) -> Iterator[RunningAgent]:  # fmt: skip
    """An agent on free ports; it is killed at the end. `command` may start it in its own way."""
    folder.mkdir(parents=True, exist_ok=True)
    http_port, health_port = free_port(), free_port()
    environment = {key: value for key, value in os.environ.items() if "TRIMTAB" not in key}
    environment |= {
        "TRIMTAB_DEVICE_ID": device,
        "TRIMTAB_STATE_DIR": str(folder / "state"),
        "TRIMTAB_KEYS_DIR": str(keys),
        "TRIMTAB_BROKER__HOST": "127.0.0.1",
        "TRIMTAB_BROKER__PORT": str(broker_port),
        "TRIMTAB_BROKER__RECONNECT_LEAST_S": "0.1",
        "TRIMTAB_BROKER__RECONNECT_MOST_S": "1",
        "TRIMTAB_HTTP_PORT": str(http_port),
        "TRIMTAB_HEALTH_PORT": str(health_port),
        "TRIMTAB_TELEMETRY_INTERVAL_S": "1",
    } | {f"TRIMTAB_{key.upper()}": value for key, value in settings.items()}
    agent = RunningAgent(folder, environment, http_port, health_port, command=command)
    agent.start()
    try:
        until(lambda: agent.ready() or None, what="agent ready")
        yield agent
    finally:
        if agent.process and agent.process.poll() is None:
            agent.kill()
