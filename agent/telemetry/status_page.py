"""The agent's own port: /live, /ready, /metrics and a page for people.

It runs inside the agent's event loop and takes no signal handlers; what it shows comes from a
callable, so that it knows nothing of the rooms beside it.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import uvicorn

from agent.errors import Unavailable
from agent.http_heads import BoundedHeads
from agent.telemetry import metrics, page
from agent.telemetry.view import StatusView

# ASGI 3.0 (asgi.readthedocs.io/en/latest/specs/main.html).
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_TEXT, _JSON, _HTML = "text/plain; charset=utf-8", "application/json", "text/html; charset=utf-8"


@dataclass(frozen=True)
class Answer:
    """One response before it is sent."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        Unavailable: the port is taken, or the host is none of this device's addresses.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


async def serve(listener: socket.socket, view: Callable[[], StatusView]) -> None:
    """Answer on `listener` until cancelled; then close it."""
    config = uvicorn.Config(
        application(view), loop="none", http=BoundedHeads, ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False, date_header=False,
        limit_concurrency=32, timeout_keep_alive=5, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="status page server")
    try:
        await asyncio.shield(task)
    finally:
        server.stop()
        await task


def application(
    view: Callable[[], StatusView],
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The page as an ASGI application."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        del receive  # no route reads a body
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        reply = route(scope["method"], scope["path"], accept=accept, view=view)
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            (b"cache-control", b"no-store"),
            *reply.headers,
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})

    return answer


def route(method: str, path: str, *, accept: str, view: Callable[[], StatusView]) -> Answer:
    """The answer to one request, without a transport."""
    make = ROUTES.get(path)
    if make is None:
        known = ", ".join(ROUTES)
        return Answer(404, _TEXT, f"cannot find {path[:80]}: known are {known}\n".encode())
    if method not in {"GET", "HEAD"}:
        text = f"cannot {method[:20]} {path}: only GET and HEAD\n"
        return Answer(405, _TEXT, text.encode(), ((b"allow", b"GET, HEAD"),))
    return make(accept, view)


def _live(accept: str, view: Callable[[], StatusView]) -> Answer:
    del accept, view  # that the loop answers is all there is to say
    return Answer(200, _TEXT, b"live\n")


def _ready(accept: str, view: Callable[[], StatusView]) -> Answer:
    status = view().status
    reason = "" if status.ready else status.not_ready_because or "starting"
    code = 200 if status.ready else 503
    if "application/json" in accept:
        body = {"ready": status.ready} | ({"because": reason} if reason else {})
        return Answer(code, _JSON, json.dumps(body).encode())
    return Answer(code, _TEXT, (f"not ready: {reason}\n" if reason else "ready\n").encode())


def _metrics(accept: str, view: Callable[[], StatusView]) -> Answer:
    body, content_type = metrics.exposition(view(), accept=accept)
    return Answer(200, content_type, body)


def _page(accept: str, view: Callable[[], StatusView]) -> Answer:
    del accept
    return Answer(200, _HTML, page.render(view()), page.HEADERS)


ROUTES: dict[str, Callable[[str, Callable[[], StatusView]], Answer]] = {
    "/": _page,
    "/live": _live,
    "/ready": _ready,
    "/metrics": _metrics,
}


class _Server(uvicorn.Server):
    """A uvicorn server that is a guest in somebody else's event loop."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none: SIGTERM is the agent's."""
        yield

    async def main_loop(self) -> None:
        """Wait for `stop`; uvicorn's own loop wakes an idle device ten times a second."""
        await self._stopped.wait()
