"""What serving costs over a bare `session.run`: interleaved, as ratios, on a microsecond model.

Not a gate: two shared cores are too noisy for that. It prints a table and checks only that the
answers are right. Run by `./dev prove benchmarks`.
"""

import json
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.simulators import models, serving

ROUNDS = 40
CALLS = 50


def asker(address: str, head: str, body: bytes = b"") -> Callable[[], bytes]:
    """Ask the same on one open connection; the body of the answer.

    By hand on a socket: an HTTP library would take several times what is to be measured.
    """
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"{head}\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    def ask() -> bytes:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        fields, _, rest = answer.partition(b"\r\n\r\n")
        length = int(fields.split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(rest) < length:
            rest += connection.recv(65536)
        return rest

    return ask


def infer(address: str, *, binary: bool) -> Callable[[], bytes]:
    """One row of zeros to one, in JSON or binary both ways."""
    row = np.linspace(-1, 1, 8, dtype="<f4")
    tensor: dict[str, object] = {"name": "x", "shape": [1, 8], "datatype": "FP32"}
    head = "POST /v2/models/mlp/infer HTTP/1.1"
    if not binary:
        text = json.dumps({"inputs": [{**tensor, "data": row.tolist()}]})
        return asker(address, head, text.encode())
    tensor["parameters"] = {"binary_data_size": row.nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    head += f"\r\ninference-header-content-length: {len(text)}"
    return asker(address, head, text.encode() + row.tobytes())


def timed(call: Callable[[], object]) -> float:
    """Median seconds of one call in a burst."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


@pytest.mark.prove
def test_overhead_over_a_bare_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = models.mlp(tmp_path / "mlp.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    row = np.linspace(-1, 1, 8, dtype="f4")[np.newaxis]
    with serving.running() as server:
        server.load("mlp", path)
        ways: dict[str, Callable[[], object]] = {
            "session.run": lambda: session.run(None, {"x": row}),
            "a request that runs nothing": asker(server.address, "GET /v2/health/live HTTP/1.1"),
            "v2 JSON over TCP": infer(server.address, binary=False),
            "v2 binary over TCP": infer(server.address, binary=True),
        }
        answer = ways["v2 binary over TCP"]()
        assert isinstance(answer, bytes)
        assert np.allclose(np.frombuffer(answer[-16:], "<f4"), session.run(None, {"x": row})[0])
        rounds = [{name: timed(call) for name, call in ways.items()} for _ in range(ROUNDS)]
    with capsys.disabled():
        print(f"\n{'way':32} {'median us':>10} {'x session.run':>14}   (client included)")
        for name in ways:
            us = statistics.median(each[name] for each in rounds) * 1e6
            ratio = statistics.median(each[name] / each["session.run"] for each in rounds)
            print(f"{name:32} {us:10.1f} {ratio:14.1f}")
