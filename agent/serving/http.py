"""The transport: HTTP/1.1 over httptools and uvloop. Why not uvicorn: docs/adr/0010.

A request passes through heads.py, connection.py and, where its body is long, bodies.py; what all
connections share is in door.py.
"""

import asyncio
import socket

from agent.serving.connection import Connection
from agent.serving.door import Door

_BACKLOG = 1024
"""As agent.host.listening has it: asyncio listens once more, with what it is told."""


async def accept(descriptor: int, door: Door) -> asyncio.Server:
    """Accept connections on a listening socket."""
    listener = socket.socket(fileno=descriptor)
    return await door.loop.create_server(lambda: Connection(door), sock=listener, backlog=_BACKLOG)
