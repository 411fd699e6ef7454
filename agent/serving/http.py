"""The transport: an ASGI application for uvicorn that bounds and aligns request bodies."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent.errors import BadInput, Unavailable
from agent.protocol.oip import HEADER_LENGTH
from agent.serving import api
from agent.serving.api import Answer, Request, Routes
from agent.serving.service import Service

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_ALIGNMENT = 16
_LINGER_S = 2.0
_MOST_DIGITS = 12
_JSON_LENGTH = HEADER_LENGTH.lower().encode()


@dataclass(frozen=True)
class Bounds:
    """What requests may take. JSON as Python objects takes many times its length in memory."""

    body_bytes: int = 64 * 1024 * 1024
    json_bytes: int = 16 * 1024 * 1024
    held_bytes: int = 256 * 1024 * 1024
    """All bodies together that are being read or worked on."""


class TooLarge(BadInput):
    """A body beyond the bound; it is not read."""


class _Gone(Exception):
    """The client went away before its request was complete."""


class Application:
    """An ASGI application over a table of routes."""

    def __init__(self, routes: Routes, service: Service, bounds: Bounds = Bounds()) -> None:
        self._routes = routes
        self._service = service
        self._bounds = bounds
        self._held_bytes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        held: list[bytes] = []
        try:
            body = await self._body(headers, receive, held)
            request = Request(scope["method"], scope["path"], scope["query_string"], headers, body)
            await _send(send, await api.answer(self._routes, self._service, request))
        except TooLarge as error:
            refused = api.as_json({"error": str(error)}, status=413)
            await _send_unread(send, refused, receive)
        except (BadInput, Unavailable) as error:
            await _send_unread(send, api.failure(error), receive)
        except _Gone:
            pass
        finally:
            self._held_bytes -= sum(map(len, held))

    async def _body(
        self, headers: Mapping[bytes, bytes], receive: Receive, held: list[bytes]
    ) -> memoryview:
        """Read the body; what was kept of it is counted in `held` until the answer is out."""
        encoding = headers.get(b"content-encoding", b"identity")
        if encoding.lower() != b"identity":
            raise BadInput(f"cannot read a body encoded as {encoding[:20].decode('latin-1')!r}")
        text_bytes = headers.get(_JSON_LENGTH, b"")
        if text_bytes and not (text_bytes.isdigit() and len(text_bytes) <= _MOST_DIGITS):
            raise BadInput(f"cannot read {HEADER_LENGTH} {text_bytes[:20]!r}: not a length")
        most = self._bounds.body_bytes if text_bytes else self._bounds.json_bytes
        total = int(headers.get(b"content-length", b"0"))
        if total > most:
            raise TooLarge(f"cannot accept a body of {total} bytes: at most {most}")
        if int(text_bytes or b"0") > self._bounds.json_bytes:
            most = self._bounds.json_bytes
            raise TooLarge(f"cannot accept {int(text_bytes)} bytes of JSON: at most {most}")
        read, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            held.append(message["body"])
            self._held_bytes += len(held[-1])
            read += len(held[-1])
            more = message.get("more_body", False)
            if read > most:
                raise TooLarge(f"cannot accept a body of {read} bytes or more: at most {most}")
            if self._held_bytes > self._bounds.held_bytes:
                raise Unavailable(
                    f"cannot accept more now: {self._held_bytes} bytes of requests are being held"
                )
        return _joined(held, text_bytes)


def _joined(parts: list[bytes], text_bytes: bytes) -> memoryview:
    """One buffer, in which the tensors after the JSON begin where their loads want them."""
    if len(parts) == 1:
        return memoryview(parts[0])
    before = -int(text_bytes or b"0") % _ALIGNMENT
    whole = b"".join((bytes(before), *parts))
    parts[:] = [whole]
    return memoryview(whole)[before:]


async def _send(send: Send, answer: Answer, *, last: bool = True) -> None:
    sizes = [len(part) for part in answer.parts]
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", str(sum(sizes)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    for part in answer.parts[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": answer.parts[-1], "more_body": not last})


async def _send_unread(send: Send, answer: Answer, receive: Receive) -> None:
    """Answer before the body has been read, and close.

    Closing a socket that holds unread bytes resets it, and the client might never see the
    answer: so what still comes is thrown away for a moment.
    """
    closing = answer._replace(headers=(*answer.headers, (b"connection", b"close")))
    await _send(send, closing, last=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b""})
