"""A door with small handlers of its own, on uvloop as in the server, for tests of the transport."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import numpy as np
import uvloop

from agent.serving import http
from agent.serving.api import Answer, Match, Request, Routes, route
from agent.serving.door import Bounds, Door

PATIENCE_S = 20.0


class Place:
    """What a test's story sees: the door, where it is, and what the handlers did."""

    def __init__(self, door: Door, listener: socket.socket, server: asyncio.Server) -> None:
        self.door = door
        self.server = server
        self.address = listener.getsockname()
        self.unix = listener.family == socket.AF_UNIX
        self.asked: list[str] = []
        self.held = asyncio.Event()
        """Somebody waits in /wait."""
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.unix:
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address[:2])

    async def say(self, *pieces: bytes, end: bool = False) -> bytes:
        """Send the pieces one by one on a new connection; everything that comes until it ends."""
        reader, writer = await self.connect()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if end:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.close()


class Told(NamedTuple):
    """One answer, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes


def answers(data: bytes, *, to_head: bool = False) -> list[Told]:
    """Take apart what a connection brought; nothing may be left over."""
    found = []
    while data:
        text, _, data = data.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if to_head else int(headers.get("content-length", "0"))
        assert len(data) >= length
        found.append(Told(int(first.split(" ")[1]), headers, data[:length]))
        data = data[length:]
    return found


async def read_answer(reader: asyncio.StreamReader) -> Told:
    """Read one answer from a connection that stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    told = answers(head, to_head=True)[0]
    body = await reader.readexactly(int(told.headers.get("content-length", "0")))
    return told._replace(body=body)


def post(path: str, body: bytes = b"", *fields: str) -> bytes:
    """One request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(path: str, *chunks: bytes, fields: str = "", trailer: bytes = b"") -> bytes:
    """One request whose body comes in chunks."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n{fields}\r\n".encode()
    return (
        head
        + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks)
        + b"0\r\n"
        + trailer
        + b"\r\n"
    )


def _routes(place: list[Place]) -> Routes:
    def echo(_service: Any, request: Request, _match: Match) -> Answer:
        place[0].asked.append(request.path)
        return Answer(200, [bytes(request.body)], b"text/plain")

    def aligned(_service: Any, request: Request, _match: Match) -> Answer:
        skip = int(request.headers[b"inference-header-content-length"])
        address = np.frombuffer(request.body[skip:], "u1").ctypes.data
        return Answer(200, [str(address % 16).encode()], b"text/plain")

    def big(_service: Any, _request: Request, _match: Match) -> Answer:
        return Answer(200, [b"x" * 8_000_000, memoryview(b"y" * 8_000_000)], b"text/plain")

    def live(_service: Any, _request: Request, _match: Match) -> Answer:
        return Answer(200, [b"{}"])

    async def wait(_service: Any, request: Request, _match: Match) -> Answer:
        place[0].held.set()
        try:
            await place[0].go_on.wait()
        except asyncio.CancelledError:
            place[0].cancelled.set()
            raise
        return echo(_service, request, _match)

    async def give_up(_service: Any, _request: Request, _match: Match) -> Answer:
        raise asyncio.CancelledError

    return Routes(
        route("POST", "/echo.*", echo),
        route("GET", "/echo.*", echo),
        route("POST", "/aligned", aligned),
        route("GET", "/big", big),
        route("POST", "/wait", wait),
        route("POST", "/give-up", give_up),
        route("GET", "/v2/health/live", live),
    )


def tell(
    story: Callable[[Place], Awaitable[Any]],
    *,
    bounds: Bounds | None = None,
    token: str | None = None,
    unix: str | None = None,
) -> Any:
    """Run a story at an open door; afterwards nothing may be held, and nobody be inside."""

    async def run() -> Any:
        known: list[Place] = []
        door = Door(_routes(known), None, bounds=bounds or Bounds(), token=token)  # type: ignore[arg-type] # no handler here asks the service
        if unix is None:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(unix)
            listener.listen()
        async with asyncio.timeout(PATIENCE_S):
            server = await http.accept(listener.detach(), door)
            place = Place(door, server.sockets[0], server)  # type: ignore[arg-type] # asyncio's own wrapper
            known.append(place)
            try:
                return await story(place)
            finally:
                server.close()
                await door.close(within_s=0.1)
                while door.guests:
                    await asyncio.sleep(0.01)
                assert door.held_bytes == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
