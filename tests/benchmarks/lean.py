"""A client that costs next to nothing: one request, made once, asked again and again on a socket.

An HTTP library would take several times what is to be measured.
"""

import json
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.null_server import LENGTHS

Address = tuple[str, int] | Path
"""Host and port, or the path of a Unix socket."""


@dataclass(frozen=True)
class Question:
    """One request as it goes over the wire."""

    head: bytes
    body: bytes = b""

    @property
    def whole(self) -> bytes:
        return self.head + self.body


def question(
    path: str, body: bytes = b"", *, method: str = "POST", json_bytes: int | None = None
) -> Question:
    """Write the head as `curl` would, without what nobody reads."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:8000", "Accept: */*"]
    if json_bytes is not None:
        lines.append(f"Inference-Header-Content-Length: {json_bytes}")
        lines.append("Content-Type: application/octet-stream")
    elif body:
        lines.append("Content-Type: application/json")
    lines.append(f"Content-Length: {len(body)}")
    return Question(("\r\n".join(lines) + "\r\n\r\n").encode(), body)


def infer(model: str, name: str, array: NDArray[Any], *, binary: bool) -> Question:
    """Ask for all outputs, in JSON or in binary both ways."""
    tensor: dict[str, Any] = {"name": name, "shape": array.shape, "datatype": "FP32"}
    path = f"/v2/models/{model}/infer"
    if not binary:
        text = json.dumps({"inputs": [{**tensor, "data": array.ravel().tolist()}]})
        return question(path, text.encode())
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return question(path, text.encode() + array.tobytes(), json_bytes=len(text))


def connect(address: Address) -> socket.socket:
    """Connect, without Nagle's delay."""
    if isinstance(address, Path):
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.connect(str(address))
        return line
    line = socket.create_connection(address, timeout=60)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    line.settimeout(None)  # a timeout would cost a poll for each call
    return line


class Line:
    """One open connection that asks one question, whose answers are equally long.

    `answer_bytes`: how long, for a server that does not say so (the null server is told first).
    """

    def __init__(
        self, address: Address, asked: Question, *, answer_bytes: int | None = None
    ) -> None:
        self._address = address
        self._request = asked.whole
        self._told = b"" if answer_bytes is None else LENGTHS.pack(len(asked.whole), answer_bytes)
        self.socket = self._connected()
        self.head, self.body = (b"", b"") if self._told else self._first()
        self.answer_bytes = answer_bytes or len(self.head) + len(self.body)
        self._into = memoryview(bytearray(self.answer_bytes))
        self._left = 0

    def _connected(self) -> socket.socket:
        line = connect(self._address)
        line.sendall(self._told)
        return line

    def revive(self) -> None:
        """Connect anew where the server has hung up: on a busy machine turns are far apart."""
        try:
            gone = not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            gone = False
        except ConnectionError:
            gone = True
        if gone:
            self.socket.close()
            self.socket = self._connected()

    def _first(self) -> tuple[bytes, bytes]:
        self.socket.sendall(self._request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._some()
        head, _, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        parts = [body]
        left = int(fields[b"content-length"]) - len(body)
        while left:
            parts.append(self._some())
            left -= len(parts[-1])
        assert b" 200 " in head, answer[:500]
        return head + b"\r\n\r\n", b"".join(parts)

    def _some(self) -> bytes:
        some = self.socket.recv(1 << 20)
        if not some:
            raise ConnectionError("the server closed the connection")
        return some

    def ask(self) -> None:
        """Ask once and take the whole answer."""
        self.socket.sendall(self._request)
        into, left = self._into, len(self._into)
        while left:
            left -= self.socket.recv_into(into[-left:] if left < len(into) else into)

    def send(self) -> None:
        """Ask without waiting."""
        self.socket.sendall(self._request)
        self._left = len(self._into)

    def take(self) -> bool:
        """Take what has come; whether that was all."""
        self._left -= self.socket.recv_into(self._into)
        return not self._left

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def timed_us(call: Any, *, seconds: float, least: int = 3) -> NDArray[np.float64]:
    """How long single calls take, for that many seconds; microseconds each."""
    taken, until = [], time.perf_counter() + seconds
    while len(taken) < least or time.perf_counter() < until:
        began = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - began)
    return np.array(taken) / 1e3


def pressed(lines: Sequence[Line], *, seconds: float) -> float:
    """Requests per second when each line asks again as soon as it has its answer."""
    for line in lines:
        line.revive()
    by_number = {line.socket.fileno(): line for line in lines}
    done, began = 0, time.perf_counter()
    with select.epoll() as waiting:
        for number, line in by_number.items():
            waiting.register(number, select.EPOLLIN)
            line.send()
        busy = len(lines)
        until = began + seconds
        while busy:
            for number, _ in waiting.poll():
                line = by_number[number]
                if not line.take():
                    continue
                done += 1
                if time.perf_counter() < until:
                    line.send()
                else:
                    busy -= 1
    return done / (time.perf_counter() - began)
