"""The server process: `python -P -m agent.serving.server`, started by agent/host/supervisor.py.

It is given listening sockets and the crash page as file descriptors. It ends at SIGTERM, and
when its standard input ends: that is its parent's death, and an orphan would keep the port.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import mmap
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import uvloop

from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.serving import http, private_api, public_api
from agent.serving.door import Bounds, Door
from agent.serving.service import Service
from agent.serving.shared_memory import Regions
from agent.serving.slot import Slots
from agent.serving.variant import MOST_WAITING

GRACE_S = 5
"""How long requests that are being answered may take after the end was asked for."""


async def _serve(arguments: argparse.Namespace) -> None:
    page = CrashPage(mmap.mmap(arguments.crash_page_fd, crash_page.BYTES))
    slots = Slots(
        page=page,
        serial=arguments.serial_s > 0,
        most_waiting=arguments.most_waiting,
        careful=False,
    )
    loop = asyncio.get_running_loop()
    loop.call_later(arguments.serial_s, slots.run_apart)
    bounds = Bounds(body_bytes=arguments.body_bytes)
    opened, stopping = asyncio.Event(), asyncio.Event()
    shared = Regions() if arguments.shared_memory else None
    service = Service(slots, shared=shared, model_control=arguments.model_control)
    token = arguments.token_file and arguments.token_file.read_text("ascii").strip()
    public = Door(public_api.ROUTES, service, bounds=bounds, token=token)
    private = Door(private_api.routes(open_public=opened.set), service, bounds=bounds)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGINT, stopping.set)
    threading.Thread(
        target=_follow_parent, args=(loop, stopping), name="parent watch", daemon=True
    ).start()
    servers = [await http.accept(arguments.private_fd, private)]
    ending = asyncio.create_task(stopping.wait(), name="end")
    opening = asyncio.create_task(opened.wait(), name="open")
    await asyncio.wait({ending, opening}, return_when=asyncio.FIRST_COMPLETED)
    if opened.is_set():
        servers += [await http.accept(each, public) for each in arguments.public_fd]
    await ending
    for server in servers:
        server.close()
    await asyncio.gather(public.close(within_s=GRACE_S), private.close(within_s=GRACE_S))


def _follow_parent(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """Begin to end when the parent has gone; end in any case a little later."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop may be closed already
        loop.call_soon_threadsafe(stopping.set)
    threading.Event().wait(GRACE_S + 2)
    os._exit(1)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="agent.serving.server", description=__doc__)
    parser.add_argument("--public-fd", type=int, action="append", required=True)
    parser.add_argument("--private-fd", type=int, required=True)
    parser.add_argument("--crash-page-fd", type=int, required=True)
    parser.add_argument("--body-bytes", type=int, default=Bounds.body_bytes)
    parser.add_argument("--serial-s", type=float, default=0.0, help="run one model at a time")
    parser.add_argument("--shared-memory", action="store_true", help="clients may share memory")
    parser.add_argument("--model-control", action="store_true", help="clients may load and unload")
    parser.add_argument("--most-waiting", type=int, default=MOST_WAITING, help="for one model")
    parser.add_argument("--token-file", type=Path, help="what clients must show")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Serve until told to end."""
    arguments = _arguments(argv)
    faulthandler.enable()
    os.dup2(2, 1)  # nobody reads the pipe that standard output is
    logging.basicConfig(level=logging.WARNING, format="server: %(levelname)s %(message)s")
    uvloop.run(_serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
