"""The server's own protocol, spoken over its private Unix socket: one connection a call.

A few lines of HTTP by hand: the daemon is small because it brings no HTTP client along.
"""

import asyncio
import json
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from agent.errors import BadInput, TrimtabError, Unavailable
from agent.protocol.capturing import CAPTURE_PATH, CaptureOrder, CaptureStatus
from agent.protocol.private import (
    ERROR_STATUS,
    OPEN_PATH,
    STATUS_PATH,
    LoadReply,
    LoadRequest,
    ServerStatus,
)
from compression.words import Words

LOAD_TIMEOUT_S = 300.0


class NotNow(Unavailable):
    """The server has answered: it cannot do that now, for want of memory most of the time."""


_ERRORS: dict[int, type[TrimtabError]] = {
    404: BadInput,
    **{status: kind for kind, status in ERROR_STATUS.items()},
    ERROR_STATUS[Unavailable]: NotNow,
}
_HEAD_BYTES = 16 * 1024
_BODY_BYTES = 4 * 1024 * 1024
_Reply = TypeVar("_Reply", bound=Words)


class Client:
    """Calls to the server behind one socket path.

    Every call raises Unavailable where the server does not answer (in time, or because it
    died), and otherwise the server's own error with its text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self, request: LoadRequest, *, timeout_s: float = LOAD_TIMEOUT_S) -> LoadReply:
        """Load a variant and switch to it.

        Raises:
            BadInput, Corrupt, Refused: what is wrong with the file or its answers.
        """
        body = await self._call(
            "POST", _repository(request.name, "load"), request.to_json(), timeout_s=timeout_s
        )
        return _words(LoadReply, body)

    async def unload(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Take a model out of service.

        Raises:
            BadInput: nothing of that name is live.
        """
        await self._call("POST", _repository(name, "unload"), b"", timeout_s=timeout_s)

    async def serves(self, name: str, *, timeout_s: float = 10.0) -> bool:
        """Whether anything serves under a name; yes also while it is being replaced."""
        path = f"/v2/models/{quote(name, safe='')}/ready"
        try:
            await self._call("GET", path, b"", timeout_s=timeout_s)
        except BadInput:
            return False
        except NotNow:
            pass
        return True

    async def status(self, *, acknowledged: int, timeout_s: float) -> ServerStatus:
        """Ask for the heartbeat; `acknowledged` is the last sequence that was received."""
        path = f"{STATUS_PATH}?ack={acknowledged}"
        return _words(ServerStatus, await self._call("GET", path, b"", timeout_s=timeout_s))

    async def capture(self, order: CaptureOrder, *, timeout_s: float = 10.0) -> CaptureStatus:
        """Begin, go on with or end the keeping of live requests."""
        body = await self._call("POST", CAPTURE_PATH, order.to_json(), timeout_s=timeout_s)
        return _words(CaptureStatus, body)

    async def infer(
        self, name: str, version: int | None, request: bytes, *, timeout_s: float
    ) -> bytes:
        """Ask a model, in the JSON of the public protocol.

        Raises:
            BadInput: the request is wrong, or nothing of that name and version is live.
        """
        at = "" if version is None else f"/versions/{version}"
        path = f"/v2/models/{quote(name, safe='')}{at}/infer"
        return await self._call("POST", path, request, timeout_s=timeout_s)

    async def open(self, *, timeout_s: float = 10.0) -> None:
        """Let it begin to accept on its public sockets."""
        await self._call("POST", OPEN_PATH, b"", timeout_s=timeout_s)

    async def _call(self, method: str, path: str, body: bytes, *, timeout_s: float) -> bytes:
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(timeout_s):
                status, answer = await self._exchange(
                    f"{method} {path} HTTP/1.1\r\nhost: server\r\nconnection: close\r\n"
                    f"content-length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        except TimeoutError as error:
            raise Unavailable(f"cannot reach the server: {what} took over {timeout_s} s") from error
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"cannot reach the server: {what}: {error}") from error
        if status != 200:
            raise _ERRORS.get(status, Unavailable)(_text(answer) or f"cannot {what}: {status}")
        return answer

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=_HEAD_BYTES)
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            length = int(fields["content-length"])
            if length > _BODY_BYTES:
                raise ValueError(f"an answer of {length} bytes")
            return int(head[0].split(" ", 2)[1]), await reader.readexactly(length)
        except (KeyError, IndexError) as error:
            raise ValueError("an answer that is not HTTP") from error
        finally:
            writer.close()


def _repository(name: str, verb: str) -> str:
    return f"/v2/repository/models/{quote(name, safe='')}/{verb}"


def _words(kind: type[_Reply], body: bytes) -> _Reply:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise Unavailable(f"cannot understand the server's {kind.__name__}: {error}") from error


def _text(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
