"""The v2 protocol without a transport: a request in, status, headers and body parts out.

Errors are `{"error": "cannot ..."}` under the status of their kind.
"""

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from agent.errors import TrimtabError
from agent.protocol import oip
from agent.protocol.private import ERROR_STATUS
from agent.serving.faults import Busy, Expired, Forbidden, NotFound, NotOffered
from agent.serving.known import Spoken
from agent.serving.outlet import Outlet
from agent.serving.service import Service

_LOG = logging.getLogger(__name__)
_REMEMBERED = 256
_STATUS: dict[type, int] = {
    NotFound: 404,
    Forbidden: 403,
    NotOffered: 501,
    Expired: 504,
    **ERROR_STATUS,
}


class Request(NamedTuple):
    """One HTTP request; header names are in lower case, the path is decoded."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: memoryview


class Pending(Protocol):
    """An answer that will come."""

    def cancel(self) -> object:
        """Nobody waits for it any more."""


Came = Callable[[bytes | None, bytes], None]
"""Told what of an answer is still to be sent, or None, and what was asked."""


class Rote(Protocol):
    """How to answer a request again that differs in nothing but the data behind its JSON."""

    def answer(self, told: bytes, data: bytes, at: int) -> bytes | None:
        """`told`, and what stands behind it, for the data from `at` on; None: not now."""

    def later(
        self,
        told: bytes,
        data: bytes,
        at: int,
        outlet: Outlet | None,
        came: Came,
    ) -> Pending | None:
        """As `answer`, sent by the model's thread; then `came` is told on the loop what of the
        answer is left to be sent, and `data`.

        None, here or there: ask the usual way.
        """


class Answer(NamedTuple):
    """What goes out; the transport adds the length."""

    status: int
    parts: Sequence[bytes | memoryview]
    content_type: bytes = oip.JSON_TYPE.encode()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    rote: Rote | None = None
    """How to answer the same again with other tensors behind its JSON."""
    spoken: Spoken | None = None
    """Likewise, with other tensors in its JSON."""


Match = re.Match[str]
Answering = Answer | Awaitable[Answer]
Handler = Callable[[Service, Request, Match], Answering]


class Route(NamedTuple):
    """Which handler answers which paths."""

    method: str
    path: re.Pattern[str]
    handler: Handler


def route(method: str, path: str, handler: Handler) -> Route:
    """Make a route; `path` is a regular expression for the whole path."""
    return Route(method, re.compile(path + r"/?\Z"), handler)


class Routes:
    """A table of routes; the first that matches answers. What was found is remembered."""

    def __init__(self, *routes: Route) -> None:
        self._routes = routes
        self._found: dict[tuple[str, str], tuple[Handler, Match]] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, method: str, path: str) -> tuple[Handler, Match] | Answer:
        """The handler for a path, or the answer that there is none."""
        found = self._found.get((method, path))
        if found is not None:
            return found
        others = []
        for allowed, pattern, handler in self._routes:
            match = pattern.match(path)
            if match and allowed == ("GET" if method == "HEAD" else method):
                if len(self._found) >= _REMEMBERED:
                    self._found.clear()
                self._found[method, path] = handler, match
                return handler, match
            if match:
                others.append(allowed)
        if not others:
            return as_json({"error": f"cannot find {path[:80]}"}, status=404)
        refused = as_json({"error": f"cannot {method} {path[:80]}: use {others[0]}"}, status=405)
        return refused._replace(headers=((b"allow", ", ".join(others).encode()),))


def as_json(document: Any, *, status: int = 200) -> Answer:
    """Answer with a JSON document."""
    return Answer(status, [orjson.dumps(document)])


def failure(error: Exception) -> Answer:
    """Answer with an error under the status of its kind."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            refused = as_json({"error": str(error)}, status=_STATUS[kind])
            if _STATUS[kind] != 503:
                return refused
            wait_s = error.retry_after_s if isinstance(error, Busy) else 1.0
            after = str(max(1, math.ceil(wait_s))).encode()
            return refused._replace(headers=((b"retry-after", after),))
    if not isinstance(error, TrimtabError):
        _LOG.error("cannot answer a request", exc_info=error)
        return as_json({"error": f"cannot answer: {type(error).__name__}: {error}"}, status=500)
    return as_json({"error": str(error)}, status=500)


def begin(routes: Routes, service: Service, request: Request) -> Answering:
    """Answer at once, or give an awaitable where something has to be waited for.

    Never raises, nor does the awaitable. Cancel it when the client has gone: what has not begun
    to run then never runs, and what runs is stopped.
    """
    found = routes.find(request.method, request.path)
    if isinstance(found, Answer):
        return found
    handler, match = found
    try:
        answering = handler(service, request, match)
    except Exception as error:  # every failure becomes an answer
        return failure(error)
    return answering if isinstance(answering, Answer) else _guarded(answering)


async def answer(routes: Routes, service: Service, request: Request) -> Answer:
    """Answer one request; never raises."""
    answering = begin(routes, service, request)
    return answering if isinstance(answering, Answer) else await answering


async def _guarded(answering: Awaitable[Answer]) -> Answer:
    try:
        return await answering
    except asyncio.CancelledError:
        raise
    except Exception as error:  # every failure becomes an answer
        return failure(error)
