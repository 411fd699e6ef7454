"""What was sent and waits for the broker's acknowledgement, by packet id."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.errors import TrimtabError, Unavailable


@dataclass
class _Waiting:
    what: str
    future: "asyncio.Future[None]"
    losses: int = field(default=0)


class Pending:
    """Futures by packet id; made, settled and failed on one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}

    def expect(self, mid: int, *, what: str) -> "asyncio.Future[None]":
        """Return the future of packet `mid`; it must be made before the loop turns again.

        It fails with "cannot `what`: ...", Unavailable unless it was settled as another kind.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self._waiting[mid] = _Waiting(what, future)

        def forget(_: "asyncio.Future[None]") -> None:
            if self._waiting.get(mid) is entry:
                del self._waiting[mid]

        future.add_done_callback(forget)
        return future

    def settle(
        self, mid: int, *, failure: str | None, kind: type[TrimtabError] = Unavailable
    ) -> None:
        """Resolve packet `mid`, or fail it; one that nobody waits for any more is ignored."""
        waiting = self._waiting.get(mid)
        if waiting is None or waiting.future.done():
            return
        if failure is None:
            waiting.future.set_result(None)
        else:
            _fail(waiting, failure, kind)

    def lost_once(self) -> int:
        """Count one lost connection for all that wait; return the most that any has seen."""
        for waiting in self._waiting.values():
            waiting.losses += 1
        return max((waiting.losses for waiting in self._waiting.values()), default=0)

    def fail_all(self, why: str) -> None:
        """Fail all that wait."""
        for waiting in list(self._waiting.values()):
            _fail(waiting, why)


async def all_of(futures: "Sequence[asyncio.Future[None]]", *, within_s: float) -> bool:
    """Wait for all; raise the first failure; return False where time ran out (all cancelled)."""
    done, late = await asyncio.wait(futures, timeout=within_s)
    for future in late:
        future.cancel()
    failures = [error for future in done if (error := future.exception()) is not None]
    if failures:
        raise failures[0]
    return not late


def _fail(waiting: _Waiting, why: str, kind: type[TrimtabError] = Unavailable) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(kind(f"cannot {waiting.what}: {why}"))
