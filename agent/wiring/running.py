"""The tasks of an agent: kept until it stops, and told to systemd while all of them run."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from agent.device.sd_notify import Notifier

_STOP_S = 15.0
_START_S = 60.0
_LOOK_S = 5.0
"""How often the agent looks whether its own tasks still run."""


class Running:
    """The tasks that end with the agent, in reverse, and that it ends with where one fails."""

    def __init__(self, stack: contextlib.AsyncExitStack, notifier: Notifier) -> None:
        """End tasks when `stack` unwinds."""
        self._stack, self._notifier = stack, notifier
        self._tasks: list[asyncio.Task[None]] = []

    def keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` as a task until the stack unwinds."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task}, timeout=_STOP_S)

        self._stack.push_async_callback(end)

    @contextlib.asynccontextmanager
    async def long_start(self) -> AsyncIterator[None]:
        """Ask systemd for more time while what serves is being loaded, and the loop turns."""

        async def ask() -> None:
            while True:
                await asyncio.sleep(_LOOK_S)
                self._notifier.extend_timeout(_START_S)

        self._notifier.extend_timeout(_START_S)
        task = asyncio.create_task(ask(), name="long start")
        try:
            yield
        finally:
            task.cancel()

    async def watch(self, stopping: asyncio.Event, *, check: Callable[[], None]) -> None:
        """Feed the watchdog while the event loop turns and every task of ours runs.

        Raises:
            what ended a task, or what `check` raises: a bug there ends the agent, loudly.
        """
        interval_s = min(self._notifier.watchdog_interval_s or _LOOK_S, _LOOK_S)
        while not stopping.is_set():
            for task in self._tasks:
                if task.done():
                    task.result()
            check()
            self._notifier.watchdog()
            with contextlib.suppress(TimeoutError):
                # Not asyncio.wait_for: before Python 3.12 it may swallow a cancellation.
                async with asyncio.timeout(interval_s):
                    await stopping.wait()
