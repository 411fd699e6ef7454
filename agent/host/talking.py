"""A child that is given one JSON line and answers in lines: read, followed to its death, killed."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import psutil

from agent.host import children

TAIL_LINES = 20
_LINE = 300
_LAST_WORDS_S = 5.0
"""After a child's death: what it wrote before is in the pipe already."""


@dataclass
class Child:
    """A child with its last lines of stderr, which say why it died."""

    process: asyncio.subprocess.Process
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))

    async def keep_tail(self) -> None:
        """Read its errors until it ends."""
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # a line beyond the limit: nobody needs it
            async for line in self.process.stderr:
                self.tail.append(line.decode(errors="replace").rstrip()[:_LINE])

    async def line(self) -> bytes:
        """The next line of its output; empty where it has ended.

        Something it started may hold its output open: its own death is what counts.
        """
        assert self.process.stdout is not None
        reading = asyncio.ensure_future(self.process.stdout.readline())
        dying = asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({reading, dying}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()
            dying.cancel()

    async def tell(self, message: bytes) -> None:
        """Write one line to it."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):  # its death shows in line()
            self.process.stdin.write(message + b"\n")
            await self.process.stdin.drain()

    def cpu_s(self) -> float:
        """Seconds of the processor that it has had; 0 where it is gone."""
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    async def death(self) -> str:
        """How it ended and what it said last."""
        code = await self.process.wait()
        said = next((line for line in reversed(self.tail) if line), "")
        return children.describe_exit(code) + (f": {said}" if said else "")


@contextlib.asynccontextmanager
async def running(
    module: str, limits: children.Limits, *, descriptors: Sequence[int] = ()
) -> AsyncIterator[Child]:
    """Start `module` with descriptors of ours, their numbers as its arguments; kill it at the end.

    Raises:
        Unavailable: no process can be started.
    """
    process = await children.start(
        module, *map(str, descriptors), limits=limits, pass_fds=descriptors,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    child = Child(process)
    tail = asyncio.create_task(child.keep_tail(), name=f"stderr of {module}")
    try:
        yield child
    finally:
        await children.kill(process)
        await asyncio.gather(tail, return_exceptions=True)


def with_log(error: Exception, child: Child) -> Exception:
    """The error with the last lines that the child wrote, for whoever asks why."""
    if child.tail:
        error.add_note("\n".join(child.tail))
    return error
