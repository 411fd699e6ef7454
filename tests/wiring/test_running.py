"""The tasks of an agent: one that fails ends it loudly, and systemd hears only of all that run."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.device.sd_notify import Notifier
from agent.wiring.running import Running


class Manager:
    """systemd's end of the line."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def heard(self) -> list[str]:
        """What has come since the last time."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._line.recv(4096).decode())
        return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[Manager, Notifier]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
        line.bind(str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000"}
        yield Manager(line), Notifier(environment)


def fine() -> None:
    """The supervision runs."""


async def test_the_watchdog_is_fed_while_everything_runs_and_no_more_when_a_task_has_failed(
    manager: tuple[Manager, Notifier],
) -> None:
    systemd, notifier = manager
    stopping, broken = asyncio.Event(), asyncio.Event()

    async def reporting() -> None:
        await broken.wait()
        raise ZeroDivisionError("a bug")

    async with contextlib.AsyncExitStack() as stack:
        running = Running(stack, notifier)
        running.keep(reporting(), "reporter")
        watching = asyncio.create_task(running.watch(stopping, check=fine))
        while not systemd.heard():
            await asyncio.sleep(0)
        broken.set()
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await watching
        systemd.heard()
        for _ in range(100):
            await asyncio.sleep(0)
        assert systemd.heard() == []


async def test_what_ended_the_supervision_ends_the_agent(
    manager: tuple[Manager, Notifier],
) -> None:
    def ended() -> None:
        raise OSError("no process can be started")

    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(OSError, match="no process"):
            await Running(stack, manager[1]).watch(asyncio.Event(), check=ended)


async def test_tasks_end_in_reverse_when_the_agent_stops(
    manager: tuple[Manager, Notifier],
) -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    stopping = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        running = Running(stack, manager[1])
        for name in ("first", "second", "third"):
            running.keep(work(name), name)
        watching = asyncio.create_task(running.watch(stopping, check=fine))
        await asyncio.sleep(0)
        stopping.set()
        await watching
        assert ended == [], "they run to the end of the stack"
    assert ended == ["third", "second", "first"]


async def test_a_long_start_asks_for_more_time_at_once(
    manager: tuple[Manager, Notifier],
) -> None:
    systemd, notifier = manager
    async with contextlib.AsyncExitStack() as stack, Running(stack, notifier).long_start():
        assert systemd.heard() == ["EXTEND_TIMEOUT_USEC=60000000"]
