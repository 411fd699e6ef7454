"""The server under requests that are nearly right: no crash, no hang, no 500, no memory kept.

100,000 of them: `./dev prove serving -k fuzz`.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from tests.serving.at_the_door import post
from tests.serving.mutating import DOCUMENTS, KINDS, PATH
from tests.simulators import models, serving
from tests.simulators.serving import Running

FEW, MANY = 400, 33_334
GROWTH_MIB = 24.0
"""Caches fill, and the allocator keeps a little: of 33,000 requests that each kept a KiB, more."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    folder = tmp_path_factory.mktemp("fuzz")
    with serving.running(unix_path=folder / "s") as server:
        server.load("mlp", models.mlp(folder / "mlp.onnx"))
        for kind in ("FP32", "BYTES", "BOOL", "FP16"):
            server.load(kind, serving.echo(folder / f"{kind}.onnx", kind))
        yield server, folder / "s"


def said(path: Path, stream: bytes) -> bytes:
    """Send a stream, say that it ends, take everything that comes: the server has to end, too."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(str(path))
        answer = b""
        try:
            line.sendall(stream)
            line.shutdown(socket.SHUT_WR)
            while some := line.recv(1 << 16):
                answer += some
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has hung up on us
        return answer


def statuses(answer: bytes) -> set[int]:
    """What the answers begin with; bodies here hold no such line."""
    lines = [part for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return {int(line[:3]) for line in lines}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.prove)])
def test_fuzz(place: tuple[Running, Path], kind: str, count: int) -> None:
    server, path = place
    random, make = Random(f"{kind} {count}"), KINDS[kind]
    seen: set[int] = set()
    for _ in range(FEW // 2):
        said(path, make(random))
    status = server.supervisor.status
    assert status is not None
    process = psutil.Process(status.pid)
    before_mib = process.memory_info().rss / 2**20
    for at in range(count):
        stream = make(random)
        found = statuses(said(path, stream))
        assert not found & {500, 503, 504}, f"case {at}: {stream!r}"
        seen |= found
    assert {200, 400} <= seen  # they were nearly right, and some were right
    assert server.supervisor.restarts == 0
    assert process.memory_info().rss / 2**20 < before_mib + GROWTH_MIB
    assert b" 200 " in said(path, post(PATH, json.dumps(DOCUMENTS[0]).encode()))
