"""One process of the server: begin it, hear it, end it."""

import asyncio
import contextlib
import sys
from collections import deque
from dataclasses import dataclass

from agent.host import children
from agent.host.blame import Verdict
from agent.host.client import Client
from agent.host.ground import Ground
from agent.protocol.private import ServerStatus

_MODULE = "agent.serving.server"
_SERIAL_S = 60
_TAIL_LINES = 80
"""Of a crash: its cause comes first, then what every thread was doing."""
_LINE = 200
_NOTICE_S = 0.5


@dataclass(frozen=True)
class Pace:
    """How patient the supervisor is."""

    poll_s: float = 1.0
    answer_s: float = 5.0
    missed: int = 3
    """Heartbeats without an answer before the server counts as hung."""
    start_s: float = 60.0
    stop_s: float = 8.0
    quick_death_s: float = 10.0
    hopeless: int = 3
    """Quick deaths before it ever came up, after which it never will."""
    most_backoff_s: float = 30.0

    def backoff_s(self, quick_deaths: int) -> float:
        """How long to wait before a restart: not at all until the third quick death in a row."""
        if quick_deaths < 3:
            return 0.0
        return min(self.most_backoff_s, 0.5 * 2.0 ** (quick_deaths - 3))


DEFAULT_PACE = Pace()


class Life:
    """A server process, from its start to the verdict on its death."""

    def __init__(self, process: asyncio.subprocess.Process, client: Client, pace: Pace) -> None:
        self.client = client
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._listening = asyncio.create_task(self._listen(process), name="server log")
        self._process = process
        self._pace = pace
        self._acknowledged = 0
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

    @classmethod
    async def begin(cls, ground: Ground, *, pace: Pace, serial: bool) -> "Life":
        """Start the process; `serial`: for a minute it runs one model at a time.

        Raises:
            Unavailable: the device has no process or memory left for it.
        """
        carefully = ["--serial-s", str(_SERIAL_S)] if serial else []
        process = await children.start(
            _MODULE, *ground.arguments, *carefully, pass_fds=ground.descriptors,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls(process, Client(ground.private_path), pace)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Pass its log on to ours, and keep the end of it."""
        assert process.stderr is not None
        with contextlib.suppress(ValueError):  # a line beyond all measure
            async for line in process.stderr:
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text[:_LINE])
                print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is the log already

    def last_words(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._tail)

    async def beat(self, *, timeout_s: float) -> ServerStatus:
        """Ask once; every status that comes back is new, and is acknowledged by the next call.

        Raises:
            Unavailable: no answer in time.
        """
        status = await self.client.status(acknowledged=self._acknowledged, timeout_s=timeout_s)
        self._acknowledged = status.sequence
        return status

    async def died(self) -> str:
        """Wait for the process to end by itself; how it did."""
        how = children.describe_exit(await self._process.wait())
        await asyncio.wait({self._listening}, timeout=_NOTICE_S)  # its last words are in the pipe
        return how

    async def gone(self) -> bool:
        """Whether it is dead, or dies in a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NOTICE_S):
                await self._process.wait()
        return self._process.returncode is not None

    def judge(self, verdict: Verdict) -> None:
        """Tell whoever waits in `verdict_soon`."""
        self._verdict.set_result(verdict)

    async def verdict_soon(self) -> Verdict | None:
        """The verdict on its death, or None where it seems to be alive."""
        try:
            async with asyncio.timeout(self._pace.answer_s):
                return await asyncio.shield(self._verdict)
        except TimeoutError:
            return None

    async def end(self) -> None:
        """Ask it to end, wait for what it is answering, then kill it. Fine when it is dead."""
        if self._process.returncode is None:
            self._process.terminate()
            waiting = asyncio.create_task(self._process.wait(), name="server end")
            await asyncio.wait({waiting}, timeout=self._pace.stop_s)
            waiting.cancel()
        await children.kill(self._process)

    async def kill(self) -> None:
        """Kill it now."""
        await children.kill(self._process)
