"""The real server under its real supervisor, for tests that speak to it from outside."""

import asyncio
import hashlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from onnx import TensorProto, helper

from agent.host.supervisor import Supervisor
from agent.protocol.private import LoadRequest
from tests.simulators import models

Result = TypeVar("Result")
DTYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def echo(path: Path, datatype: str) -> Path:
    """Write a model that gives back its input: `x` [N, M] -> `y` [N, M]."""
    kind = DTYPES[datatype]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    shape = ("N", "M")
    return models.save(path, nodes, {}, {"x": shape}, {"y": shape}, dtypes={"x": kind, "y": kind})


def constant(path: Path, value: float) -> Path:
    """Write a model that answers `value` for each of its inputs: `x` [N] -> `y` [N]."""
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["z"]),
        helper.make_node("Add", ["z", "value"], ["y"]),
    ]
    weights = {"zero": np.zeros(1, "f4"), "value": np.full(1, value, "f4")}
    return models.save(path, nodes, weights, {"x": ("N",)}, {"y": ("N",)})


def pair(path: Path) -> Path:
    """Write a model of two inputs and two outputs: `a`, `b` [N] -> `sum`, `difference` [N]."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    shape = ("N",)
    return models.save(
        path, nodes, {}, {"a": shape, "b": shape}, {"sum": shape, "difference": shape}
    )


def slow(path: Path, *, layers: int = 40) -> Path:
    """Write a model whose run takes about a second per 1000 rows: `x` [N, 512] -> `y` [N, 512]."""
    nodes = [
        helper.make_node("MatMul", [f"h{at}" if at else "x", "w"], [f"h{at + 1}"])
        for at in range(layers - 1)
    ]
    nodes.append(helper.make_node("MatMul", [f"h{layers - 1}", "w"], ["y"]))
    weights = {"w": np.eye(512, dtype="f4")}
    return models.save(path, nodes, weights, {"x": ("N", 512)}, {"y": ("N", 512)})


def request(name: str, path: Path, *, version: int = 1, **fields: Any) -> LoadRequest:
    """Ask for a file as it is."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    given = {"name": name, "version": version, "path": str(path), "sha256": sha256, "index": 1}
    return LoadRequest(**(given | fields))


class Running:
    """A server that is up; its loop turns in a thread, so that blocking clients can be used."""

    def __init__(self, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        self.supervisor = supervisor
        self._loop = loop

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.supervisor.http_port}"

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine of the supervisor's; wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def load(self, name: str, path: Path, **fields: Any) -> None:
        self.call(self.supervisor.load(request(name, path, **fields)))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        within_s: float = 30,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers in lower case, body."""
        connection = HTTPConnection(self.address, timeout=within_s)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    """Run a supervisor and its server on a free port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server under test")
    thread.start()

    async def begin() -> Supervisor:
        supervisor = Supervisor(host="127.0.0.1", port=0, **options)
        await supervisor.start()
        return supervisor

    try:
        supervisor = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
        server = Running(supervisor, loop)
        try:
            yield server
        finally:
            server.call(supervisor.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
