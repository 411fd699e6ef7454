"""Who is inside a variant: runs that wait for its thread or are under way, and its end."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from agent.serving.runs import Pending, SharedThread
from agent.serving.runtime import Stop
from agent.serving.worker import Arrived, Made, Task, Worker


class Inside:
    """The runs of one variant on its thread. Only the event loop touches this."""

    def __init__(self, name: str, shared: SharedThread) -> None:
        """`shared`: a thread of all models, while it is set; else the variant gets its own."""
        self.count = 0
        self.retired = False
        """Nobody may enter any more."""
        self._name = name
        self._shared = shared
        self._own: Worker | None = None
        self._spared: Stop | None = None
        self._empty = asyncio.Event()

    @property
    def shares(self) -> bool:
        """Whether its runs are on a thread of all models now."""
        return self._shared.worker is not None

    def submit(self, job: Callable[[Stop], Made], arrived: Arrived[Made]) -> Pending:
        """Do a job that runs the model on its thread, behind those that wait."""

        def over(made: Made | None, error: BaseException | None) -> None:
            self.leave()
            arrived(made, error)

        stop, worker = Stop(), self._worker()
        self.count += 1
        return Pending(worker.submit(lambda: job(stop), over), stop, self.leave)

    def enter(self, task: Task) -> None:
        """Do a task that runs the model, as `submit`; it is to say itself that it has left."""
        worker = self._worker()
        self.count += 1
        worker.put(task)

    def leave(self) -> None:
        """One who had entered has left."""
        self.count -= 1
        if self.retired and not self.count:
            self._empty.set()

    def stop(self) -> Stop:
        """What stops a run; to be given back by `spare`, since making one takes a while."""
        stop, self._spared = self._spared, None
        return stop or Stop()

    def spare(self, stop: Stop) -> None:
        """Keep what has stopped nothing for the next run."""
        if not stop.asked:
            self._spared = stop

    async def drain(self, *, within_s: float) -> bool:
        """Wait until nobody is inside; whether that is so. To be called when nobody can enter."""
        self.retired = True
        if self.count:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._empty.wait()
        return not self.count

    def go_on(self) -> None:
        """Let requests in again, after a drain that did not end well."""
        self.retired = False
        self._empty.clear()

    def end(self) -> None:
        """End its own thread, after what waits."""
        if self._own is not None:
            self._own.end()

    def _worker(self) -> Worker:
        if self._shared.worker is not None:
            return self._shared.worker
        if self._own is None:
            self._own = Worker(f"run {self._name}")
        return self._own
