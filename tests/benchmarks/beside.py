"""What stands beside the server in its benchmark: null servers, pinning, a start from nothing."""

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.host.supervisor import Supervisor
from tests.benchmarks.lean import Address

NULL = Path(__file__).with_name("null_server.py")
LEAST = Path(__file__).with_name("least_server.py")


@dataclass(frozen=True)
class Nothing:
    """Null servers, one for each transport."""

    addresses: dict[str, Address]
    pids: tuple[int, ...]


@dataclass(frozen=True)
class Other:
    """Another server of the same models: where it listens, and what it is asked in."""

    name: str
    addresses: Mapping[str, Address]
    pid: int
    forms: tuple[str, ...] = ("JSON", "binary")


@contextlib.contextmanager
def nothing(folder: Path) -> Iterator[Nothing]:
    """Run null servers over TCP and a Unix socket."""
    with contextlib.ExitStack() as stack:
        tcp, unix, path = _listeners(stack, folder / "null.sock")
        pids = []
        for listener in (tcp, unix):
            child = subprocess.Popen(
                [sys.executable, str(NULL), str(listener.fileno())], pass_fds=[listener.fileno()]
            )
            stack.callback(child.wait)
            stack.callback(child.kill)
            pids.append(child.pid)
        yield Nothing({"TCP": tcp.getsockname()[:2], "Unix": path}, tuple(pids))


@contextlib.contextmanager
def least(folder: Path, models: Mapping[str, Path]) -> Iterator[Other]:
    """Run the least server of these models over TCP and a Unix socket."""
    with contextlib.ExitStack() as stack:
        tcp, unix, path = _listeners(stack, folder / "least.sock")
        given = [f"{name}={model}" for name, model in models.items()]
        numbers = [tcp.fileno(), unix.fileno()]
        child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, str(LEAST), *given, "--", *map(str, numbers)],
                pass_fds=numbers,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(child.kill)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield Other("least", {"TCP": tcp.getsockname()[:2], "Unix": path}, child.pid)


def _listeners(
    stack: contextlib.ExitStack, path: Path
) -> tuple[socket.socket, socket.socket, Path]:
    tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(str(path))
    unix.listen()
    return tcp, unix, path


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


@dataclass(frozen=True)
class Start:
    """From nothing to the first answer, and what the process holds before any model."""

    ready_s: float
    cpu_s: float
    rss_mib: float


def start() -> Start:
    """Start a server once."""

    async def once() -> Start:
        supervisor = Supervisor(host="127.0.0.1", port=0)
        began = time.perf_counter()
        await supervisor.start()
        ready_s = time.perf_counter() - began
        try:
            status = supervisor.status
            assert status is not None
            return Start(ready_s, status.process_cpu_s, status.rss_mib)
        finally:
            await supervisor.stop()

    return asyncio.run(once())


def told(starts: Sequence[Start]) -> str:
    """Several starts as text."""
    ready = sorted(each.ready_s for each in starts)
    return (
        f"start: {statistics.median(ready):.2f} s (best {ready[0]:.2f}), "
        f"{min(each.cpu_s for each in starts):.2f} s of CPU; "
        f"{max(each.rss_mib for each in starts):.0f} MiB RSS before any model"
    )


def cpu_ns(pid: int) -> int:
    """CPU time of all threads of a process so far, as the scheduler counts it (proc(5))."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
