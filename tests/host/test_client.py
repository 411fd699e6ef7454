"""The private socket's client against servers that answer nonsense, slowly, or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from agent.host.client import Client, NotNow


@asynccontextmanager
async def answering(path: Path, answer: bytes | None) -> AsyncIterator[Client]:
    """Answer every connection with these bytes (None: never) and close."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    async with server:
        yield Client(path)
        done.set()


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d Some\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (http(400, b'{"error": "cannot do that"}'), BadInput, "cannot do that"),
        (http(404, b'{"error": "cannot find it"}'), BadInput, "cannot find it"),
        (http(409, b'{"error": "cannot agree"}'), Refused, "cannot agree"),
        (http(422, b'{"error": "cannot trust it"}'), Corrupt, "cannot trust it"),
        (http(503, b'{"error": "cannot now"}'), NotNow, "cannot now"),
        (http(500, b'{"error": "cannot answer"}'), Unavailable, "cannot answer"),
        (http(500, b"<html>"), Unavailable, "cannot GET /v2/trimtab/status"),
        (http(200, b"{}"), Unavailable, "cannot understand the server's ServerStatus"),
        (http(200, b"\xff"), Unavailable, "cannot understand the server's ServerStatus"),
        (http(200, b"{}")[:-1], Unavailable, "cannot reach the server"),
        (b"HTTP/1.1 200 OK\r\n\r\n", Unavailable, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Unavailable, "cannot reach"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Unavailable, "99999999999"),
        (b"x" * 100_000, Unavailable, "cannot reach the server"),
        (b"", Unavailable, "cannot reach the server"),
    ],
)
async def test_every_answer_becomes_a_status_or_its_error(
    tmp_path: Path, answer: bytes, kind: type[TrimtabError], text: str
) -> None:
    async with answering(tmp_path / "s", answer) as client:
        with pytest.raises(kind, match=text) as caught:
            await client.status(acknowledged=0, timeout_s=10)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("cannot ")


async def test_silence_has_a_deadline(tmp_path: Path) -> None:
    async with answering(tmp_path / "s", None) as client:
        with pytest.raises(Unavailable, match=r"took over 0\.05 s"):
            await client.status(acknowledged=0, timeout_s=0.05)


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot reach the server"):
        await Client(tmp_path / "none").unload("m")
