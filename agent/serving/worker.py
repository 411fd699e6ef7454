"""A thread that does one thing after the other, and tells the event loop how each went.

concurrent.futures does this too. Behind a run of milliseconds nothing of its code is in a cache any
more, nor is asyncio's: its futures and a task for each request cost 400 us there (docs/adr/0018).
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

Made = TypeVar("Made")
Arrived = Callable[[Made | None, BaseException | None], None]
"""What was made, or why it was not."""


class Task(Protocol):
    """What a worker does."""

    def run(self) -> None:
        """Do it, on the worker's thread. It never raises."""


class Work(Generic[Made]):
    """One thing to do."""

    __slots__ = ("_arrived", "_do", "_loop", "_once")

    def __init__(self, do: Callable[[], Made], arrived: Arrived[Made]) -> None:
        self._do = do
        self._arrived = arrived
        self._loop = asyncio.get_running_loop()
        self._once = threading.Lock()

    def cancel(self) -> bool:
        """Take it out of the queue; False: it was begun. Nobody is told of what was taken out."""
        return self._once.acquire(blocking=False)

    def run(self) -> None:
        """Do it, if nobody has taken it out; on the worker's thread."""
        if not self._once.acquire(blocking=False):
            return
        made, failed = None, None
        try:
            made = self._do()
        except BaseException as error:  # told to whoever waits
            failed = error
        try:
            self._loop.call_soon_threadsafe(self._arrived, made, failed)
        except RuntimeError:  # the loop is closed: the server has ended
            return


class Worker:
    """The thread; it ends with the process."""

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)
        self._thread.start()

    def submit(self, do: Callable[[], Made], arrived: Arrived[Made]) -> Work[Made]:
        """Do something behind all that waits; `arrived` is called on the running loop."""
        work = Work(do, arrived)
        self._queue.put(work)
        return work

    def put(self, task: Task) -> None:
        """Do a task behind all that waits."""
        self._queue.put(task)

    def end(self) -> None:
        """End after what waits."""
        self._queue.put(None)

    def join(self, *, within_s: float) -> None:
        """Wait until it has ended."""
        self._thread.join(within_s)

    def _go(self) -> None:
        while (task := self._queue.get()) is not None:
            task.run()
            del task  # it would keep a model alive until the next one comes
