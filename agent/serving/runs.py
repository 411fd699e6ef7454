"""One run of a model: where it executes, what it is given, what it gives, and how it ends early."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.protocol.crash_page import CrashPage
from agent.protocol.tensors import Array
from agent.serving.bound import Bound
from agent.serving.faults import Expired
from agent.serving.runtime import Stop
from agent.serving.shared_memory import Region
from agent.serving.worker import Work, Worker


@dataclass
class SharedThread:
    """One thread for all models while it is set, so that one thing runs at a time."""

    worker: Worker | None = None


class Place(NamedTuple):
    """Where a variant executes: its lane of the crash page, and perhaps on a shared thread."""

    page: CrashPage
    lane: int
    thread: SharedThread
    alone: Callable[[], bool] = bool
    """Whether no other model is served: then nobody else waits for the loop."""


class Ran(NamedTuple):
    """What a run gave, and when it was, by time.perf_counter_ns()."""

    arrays: list[Array]
    began_ns: int
    ended_ns: int


class Call(NamedTuple):
    """What is to be run: arrays by name to outputs, perhaps bound already."""

    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    size: int
    bound: Bound | None = None


class Prepared:
    """What is bound for a question, until it is let go. Without a binding it is always copied."""

    __slots__ = ("bound", "call", "into", "regions")

    def __init__(
        self,
        regions: tuple[Region, ...] = (),
        bound: Bound | None = None,
        into: memoryview | None = None,
    ) -> None:
        """`into`: the memory of all its inputs, one behind the other, where it is ours."""
        self.regions = regions
        self.bound = bound
        self.into = into
        self.call: Call | None = None
        """A run of what is bound."""
        if bound is not None:
            self.call = Call(bound.inputs, bound.outputs, bound.size, bound)

    def let_go(self) -> None:
        """Keep no memory any more."""
        self.bound = self.into = self.call = None


class Pending:
    """A run that waits for its thread or is under way."""

    __slots__ = ("_left", "_stop", "_work")

    def __init__(self, work: Work[Any], stop: Stop, left: Callable[[], None]) -> None:
        self._work = work
        self._stop = stop
        self._left = left

    def cancel(self) -> None:
        """Take it out of the queue, or stop it: nobody waits for it."""
        if self._work.cancel():
            self._left()
        else:
            self._stop.now()


class Outcome:
    """What becomes of a run that is queued on a thread.

    Who cancels `waiting`, or has waited `within_s` (Expired, saying `late`), gives it up.
    """

    def __init__(self, *, within_s: float | None, late: str) -> None:
        loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[Ran] = loop.create_future()
        self._late = late
        self._over = False
        self._pending: Pending | None = None
        self._timer = None if within_s is None else loop.call_later(within_s, self._expired)

    def of(self, pending: Pending) -> "asyncio.Future[Ran]":
        """Follow this run, which tells `arrived`."""
        self._pending = pending
        self.waiting.add_done_callback(self._settled)
        return self.waiting

    def arrived(self, ran: Ran | None, error: BaseException | None) -> None:
        """It is over."""
        self._over = True
        if self.waiting.done():
            return
        if ran is not None:
            self.waiting.set_result(ran)
        elif error is not None:
            self.waiting.set_exception(error)

    def _expired(self) -> None:
        if not self.waiting.done():
            self.waiting.set_exception(Expired(self._late))

    def _settled(self, _: "asyncio.Future[Ran]") -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._over and self._pending is not None:
            self._pending.cancel()
