"""What tests of the supervisor listen with, and how they ask its server."""

import asyncio
from typing import Any

import numpy as np

from agent.host.life import Pace
from agent.host.supervisor import Supervisor
from agent.protocol.private import ServerStatus

QUICK = Pace(poll_s=0.05, answer_s=2.0)


class Ears:
    """What the callbacks heard."""

    def __init__(self) -> None:
        self.crashes: list[tuple[str | None, str]] = []
        self.said: list[str] = []
        self.statuses: list[ServerStatus] = []

    def crashed(self, blamed: str | None, how: str, said: str) -> None:
        self.crashes.append((blamed, how))
        self.said.append(said)

    def requests(self, name: str) -> int:
        return sum(m.requests for status in self.statuses for m in status.models if m.name == name)


def pid(supervisor: Supervisor) -> int:
    assert supervisor.status is not None
    return supervisor.status.pid


async def post(
    supervisor: Supervisor, model: str, rows: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """One raw binary request on a connection of its own; its first output."""
    reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.http_port)
    try:
        text = (
            f'{{"inputs":[{{"name":"x","shape":{list(rows.shape)},"datatype":"FP32",'
            f'"parameters":{{"binary_data_size":{rows.nbytes}}}}}],'
            '"parameters":{"binary_data_output":true}}'
        ).encode()
        writer.write(
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"inference-header-content-length: {len(text)}\r\n"
            f"content-length: {len(text) + rows.nbytes}\r\n\r\n".encode()
            + text
            + rows.tobytes()
        )
        answer = await reader.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer[:300].decode())
        return np.frombuffer(body[body.rindex(b"}") + 1 :], "<f4")
    finally:
        writer.close()


ROW = np.zeros((1, 8), "f4")
