"""Heads that are too large or too slow, on the agent's own port."""

import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from agent import http_heads


async def knock(*pieces: bytes) -> bytes:
    """Send pieces to a server of bounded heads; everything that comes until it ends."""
    config, state = uvicorn.Config(lambda: None, log_config=None), ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: http_heads.BoundedHeads(config=config, server_state=state, app_state={}),
        "127.0.0.1",
    )
    async with server, asyncio.timeout(10):
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        finally:
            writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"])
async def test_a_head_that_never_comes_is_hung_up_on(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_heads, "HEAD_S", 0.05)
    assert await knock(sent) == b""


@pytest.mark.parametrize("sent", [b"GET /", b"GET / HTTP/1.1\r\nhost: x\r\nlong: y"])
async def test_a_head_without_end_is_hung_up_on(sent: bytes) -> None:
    with pytest.raises(OSError, match=r"reset|Broken pipe|Connection lost"):
        await knock(sent, *[b"y" * 1_000_000] * 50)
