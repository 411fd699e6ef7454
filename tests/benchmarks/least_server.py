"""The least that a server in Python can do on uvloop: read a request, run the model, answer.

`python least_server.py NAME=MODEL.onnx ... -- FD ...`: listening sockets. It checks nothing, counts
nothing and knows one path: what ours costs beyond it is what its checks and its books cost. Heads
are read by httptools, JSON by orjson. One input, one output, each request in one piece or several.
"""

import asyncio
import socket
import sys
from typing import Any

import httptools
import numpy as np
import onnxruntime
import orjson
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_BINARY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
    b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n"
)


class _Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, sessions: dict[bytes, Any]) -> None:
        self._sessions = sessions
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def data_received(self, data: bytes) -> None:
        data = self._data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n") + 4
        self._headers: dict[bytes, bytes] = {}
        httptools.HttpRequestParser(self).feed_data(data[:end])
        if len(data) < end + int(self._headers[b"content-length"]):
            return
        self._data = b""
        size = self._headers.get(b"inference-header-content-length")
        until = len(data) if size is None else end + int(size)
        (given,) = orjson.loads(memoryview(data)[end:until])["inputs"]
        if size is None:
            array = np.array(given["data"], "f4")
        else:
            array = np.frombuffer(memoryview(data)[until:], "f4")
        session = self._sessions[self._url.split(b"/")[3]]
        (made,) = session.run(None, {given["name"]: array.reshape(given["shape"])})
        self._answer(session, made, binary=size is not None)

    def _answer(self, session: Any, made: Any, *, binary: bool) -> None:
        tensor = {
            "name": session.get_outputs()[0].name, "shape": made.shape, "datatype": "FP32",
        }  # fmt: skip
        document = {"model_name": "", "model_version": "1", "outputs": [tensor]}
        if not binary:
            tensor["data"] = made.ravel()
            text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
            self._transport.write(_HEAD % len(text) + text)
            return
        tensor["parameters"] = {"binary_data_size": made.nbytes}
        text = orjson.dumps(document)
        self._transport.writelines(
            [
                _BINARY % (len(text), len(text) + made.nbytes) + text,
                made.reshape(-1).view("u1").data,
            ]
        )


def _session(path: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options)


async def _serve(models: list[str], descriptors: list[int]) -> None:
    named = (each.split("=", 1) for each in models)
    sessions = {name.encode(): _session(path) for name, path in named}
    loop = asyncio.get_running_loop()
    for descriptor in descriptors:
        listener = socket.socket(fileno=descriptor)
        make = loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        await make(lambda: _Line(sessions), sock=listener)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    split = sys.argv.index("--")
    uvloop.run(_serve(sys.argv[1:split], [int(each) for each in sys.argv[split + 1 :]]))
