"""One task per model, which drives its deployment to rest and then makes sure that it serves."""

import asyncio
import logging

from agent.control import waking
from agent.control.driving import Driver
from agent.control.parts import Parts
from agent.errors import TrimtabError

log = logging.getLogger(__name__)


class Tasks:
    """The tasks by model."""

    def __init__(self, driver: Driver, parts: Parts, *, retry_least_s: float) -> None:
        """Drive with `driver`; none runs yet."""
        self._driver, self._parts, self._retry_least_s = driver, parts, retry_least_s
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, model: str, *, after_s: float = 0.0) -> None:
        """Drive a model's deployment, after so many seconds."""
        work = self._drive(model, after_s)
        self._tasks[model] = asyncio.create_task(work, name=f"deployment of {model}")

    def running(self, model: str) -> bool:
        """Whether there is something to do for a model, tidying up behind its deployment too."""
        task = self._tasks.get(model)
        return task is not None and not task.done()

    async def end(self, model: str) -> bool:
        """Stop driving a model; whether there was something to do."""
        running, task = self.running(model), self._tasks.pop(model, None)
        if task is None or not running:
            return False
        task.cancel()
        await asyncio.wait({task})  # not `await task`: that would hide our own cancellation
        return True

    async def end_all(self) -> None:
        """Stop driving; everything resumes at the next start."""
        for model in list(self._tasks):
            await self.end(model)

    async def wait(self, model: str) -> None:
        """Wait until a model's deployment rests.

        Raises:
            what ended its task, where that was a bug.
        """
        task = self._tasks.get(model)
        if task is not None:
            await asyncio.shield(task)

    async def _drive(self, model: str, after_s: float) -> None:
        """Drive to rest, free the disk, and make sure that what should serve does."""
        if after_s:
            await asyncio.sleep(after_s)
        await self._driver.drive(model)
        try:
            waking.tidy(model, self._driver, self._parts)
        except (TrimtabError, OSError) as error:
            log.warning("cannot free the disk of old versions of %s: %s", model, error)
        live = self._driver.known[model].live
        if live is not None and self._parts.served(model) != live.sha256:
            await waking.bring_back_later(model, self._driver, self._parts, self._retry_least_s)
