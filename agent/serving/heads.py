"""Reads the head of an HTTP/1.1 request: what is asked, and where its body ends.

httptools' parser (llhttp) judges each head by itself. Where it does not find the end that we
found, the two of us disagree about what follows, and the head is refused (RFC 9112, section 11.2).
Clients that keep a connection send the same head again and again: what was read is remembered.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

import httptools

from agent.protocol.oip import HEADER_LENGTH

END = b"\r\n\r\n"
MOST_FIELDS = 100
_REMEMBERED = 512
_REMEMBERED_BYTES = 2048
_JSON_LENGTH = HEADER_LENGTH.lower().encode()
_MOST_DIGITS = 12
# Given twice, each of two readers may believe another one.
_ONCE = {b"host", b"content-length", b"transfer-encoding", b"authorization", _JSON_LENGTH}


class Unreadable(Exception):
    """A head that cannot be obeyed; `status` is what the client is told."""

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """One request before its body; the path is decoded, header names are in lower case."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    length: int
    """Bytes of the body, where it is not chunked."""
    json_bytes: int | None
    """Of them before the tensors, where the request says so."""
    chunked: bool
    waits: bool
    """Whether the client waits for `100 Continue` before it sends the body."""
    keeps: bool
    """Whether it may go on with the connection."""
    old: bool
    """HTTP/1.0, which is told when a connection stays open."""


class _Parts:
    """What the parser finds."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.begun = 0
        self.complete = False
        self.beyond = False

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True

    def on_body(self, body: bytes) -> None:
        del body
        self.beyond = True


def read(data: bytes) -> Head:
    """Read one head, with the empty line that ends it.

    Raises:
        Unreadable: it is not HTTP/1.0 or 1.1, or asks for what is not offered.
    """
    return _remembered(data) if len(data) <= _REMEMBERED_BYTES else _read(data)


def _read(data: bytes) -> Head:
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # another protocol was offered, and is not taken up: RFC 9110, section 7.8
    except httptools.HttpParserError as error:
        raise Unreadable(f"cannot read the request as HTTP: {error}") from error
    if b" HTTP/" not in data[: data.find(b"\r\n")]:  # llhttp knows cousins of HTTP too
        raise Unreadable("cannot read the request as HTTP: its first line does not say so")
    if parts.begun != 1 or not parts.complete or parts.beyond:
        raise Unreadable("cannot read the request as HTTP: its head ends in another place")
    version = parser.get_http_version()
    if version not in {"1.0", "1.1"}:
        raise Unreadable(
            f"cannot speak HTTP/{version}", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        )  # fmt: skip
    headers = _headers(parts.fields)
    if version == "1.1" and b"host" not in headers:
        raise Unreadable("cannot read the request: HTTP/1.1 wants a Host header")
    path, query = _target(parts.url)
    chunked = _chunked(headers, version)
    return Head(
        method=parser.get_method().decode("ascii"),
        path=path,
        query=query,
        headers=headers,
        length=_number(headers, b"content-length") or 0,
        json_bytes=_number(headers, _JSON_LENGTH),
        chunked=chunked,
        waits=_waits(headers) and version == "1.1",
        keeps=_keeps(headers, version),
        old=version == "1.0",
    )


_remembered = functools.lru_cache(_REMEMBERED)(_read)


def _headers(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    if len(fields) > MOST_FIELDS:
        raise Unreadable(
            f"cannot read {len(fields)} headers: at most {MOST_FIELDS}",
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        )
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in headers:
            headers[name] = value
        elif name in _ONCE:
            raise Unreadable(f"cannot read the request: two {name.decode('latin-1')} headers")
        else:  # RFC 9110, section 5.2
            headers[name] += b", " + value
    return headers


def _target(url: bytes) -> tuple[str, bytes]:
    """Path and query, also of the absolute form that proxies send (RFC 9112, section 3.2)."""
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError as error:
        raise Unreadable(f"cannot read the target {url[:80].decode('latin-1')!r}") from error
    return unquote((parsed.path or b"/").decode("latin-1")), parsed.query or b""


def _chunked(headers: Mapping[bytes, bytes], version: str) -> bool:
    encoding = headers.get(b"transfer-encoding")
    if encoding is None:
        return False
    if b"content-length" in headers or version == "1.0":  # RFC 9112, section 6.1
        raise Unreadable("cannot tell where the body ends: its Transfer-Encoding is not alone")
    if encoding.strip().lower() != b"chunked":
        named = encoding[:40].decode("latin-1")
        raise Unreadable(f"cannot read a body sent as {named!r}", HTTPStatus.NOT_IMPLEMENTED)
    return True


def _number(headers: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        shown = value[:20].decode("latin-1")
        raise Unreadable(f"cannot read {name.decode()} {shown!r}: not a length")
    return int(value)


def _keeps(headers: Mapping[bytes, bytes], version: str) -> bool:
    """RFC 9112, section 9.3."""
    options = headers.get(b"connection", b"").lower().replace(b" ", b"").split(b",")
    return b"close" not in options and (version == "1.1" or b"keep-alive" in options)


def _waits(headers: Mapping[bytes, bytes]) -> bool:
    expected = headers.get(b"expect", b"").strip().lower()
    if expected not in {b"", b"100-continue"}:
        shown = expected[:40].decode("latin-1")
        raise Unreadable(f"cannot do what is expected: {shown!r}", HTTPStatus.EXPECTATION_FAILED)
    return bool(expected)
