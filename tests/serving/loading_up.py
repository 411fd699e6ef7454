"""Starts the load of load.py and steers it; requests as they go over the wire."""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.serving.load import Group
from tests.simulators.serving import Running


def request(model: str, name: str, array: NDArray[Any]) -> bytes:
    """One binary request for all outputs, head and all."""
    tensor = {
        "name": name, "shape": array.shape, "datatype": "FP32",
        "parameters": {"binary_data_size": array.nbytes},
    }  # fmt: skip
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\n"
        f"Inference-Header-Content-Length: {len(text)}\r\n"
        f"Content-Length: {len(text) + array.nbytes}\r\n\r\n"
    )
    return head.encode() + text + array.tobytes()


class Steered:
    """A load that runs."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.seen: dict[str, dict[str, Any]] = {}

    def phase(self, name: str) -> None:
        """From now on what is seen belongs to this phase."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"

    def end(self) -> None:
        """Let it end, and keep what it saw."""
        said, _ = self._process.communicate(timeout=120)
        self.seen = json.loads(said)

    def found(self, group: str) -> dict[str, int]:
        """What a group got, over all phases."""
        total: dict[str, int] = {}
        for phase in self.seen[group].values():
            for what, count in phase["found"].items():
                total[what] = total.get(what, 0) + count
        return total

    def latencies_ms(self, group: str, *phases: str) -> NDArray[np.float64]:
        """All that a group waited in some phases."""
        return np.concatenate([self.seen[group][phase]["latencies_ms"] for phase in phases])


@contextmanager
def load(server: Running, groups: Sequence[Group], folder: Path) -> Iterator[Steered]:
    """Load a server from another process; afterwards `seen` tells."""
    host, port = server.address.split(":")
    plan = folder / "plan"
    plan.write_bytes(pickle.dumps((host, int(port), list(groups))))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.serving.load", str(plan)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        steered = Steered(process)
        try:
            yield steered
            steered.end()
        finally:
            process.kill()
