"""One run of a model: where it executes, what it is given, what it gives, and how it ends early."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from agent.protocol.crash_page import CrashPage
from agent.protocol.tensors import Array
from agent.serving.faults import Expired
from agent.serving.runtime import Bound, Stop
from agent.serving.shared_memory import Region


@dataclass
class SharedThread:
    """One thread for all models while it is set, so that one thing runs at a time."""

    executor: ThreadPoolExecutor | None = None


class Place(NamedTuple):
    """Where a variant executes: its lane of the crash page, and perhaps on a shared thread."""

    page: CrashPage
    lane: int
    thread: SharedThread


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


@dataclass(frozen=True)
class Prepared:
    """A binding and the regions that it points into. Without a binding it is always copied."""

    regions: tuple[Region, ...]
    bound: Bound | None = None
    into: memoryview | None = None
    """The memory of all its inputs, one behind the other, where it is ours."""


def outcome(
    queued: "Future[Ran]",
    stop: Stop,
    *,
    left: Callable[[], None],
    within_s: float | None,
    late: str,
) -> "asyncio.Future[Ran]":
    """What becomes of a run that is queued on a thread; `left` is called when it is over.

    Who cancels it, or has waited `within_s` (Expired, saying `late`), takes the run out of the
    queue, or stops it.
    """
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Ran] = loop.create_future()

    def arrived() -> None:
        left()
        if not waiting.done():
            error = queued.exception()
            if error is None:
                waiting.set_result(queued.result())
            else:
                waiting.set_exception(error)

    def expired() -> None:
        if not waiting.done():
            waiting.set_exception(Expired(late))

    def settled(_: "asyncio.Future[Ran]") -> None:
        if timer is not None:
            timer.cancel()
        if not queued.done() and not queued.cancel():
            stop.now()

    def over(_: "Future[Ran]") -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(arrived)

    timer = None if within_s is None else loop.call_later(within_s, expired)
    waiting.add_done_callback(settled)
    queued.add_done_callback(over)
    return waiting
