"""Messages waiting for the link: bounded, on disk; the oldest telemetry goes first, replies never.

Where the disk is full, failing or read-only, a few of them wait in memory instead.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.errors import BadInput, Refused, Unavailable
from agent.link import spool_file
from agent.link.spool_table import Kind, Loss, Table, Waiting

__all__ = ["Kind", "Loss", "Publish", "Spool", "Waiting"]

_NEVER = (BadInput, Refused)
"""What a publish raises that will not go better the next time."""
_TOGETHER = 8
_PAUSE_S = 0.2
_LOOK_AGAIN_S = 60.0
_MEMORY_BYTES = 256 * 1024

log = logging.getLogger(__name__)

Publish = Callable[[Waiting], Awaitable[None]]


class Spool:
    """The messages of one agent, in one file. Used from one thread."""

    def __init__(
        self, path: Path, *, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        """Open or make it; a file that is damaged is set aside as `NAME.corrupt`."""
        self._path, self._most_bytes, self._clock = path, most_bytes, clock
        self._filled = asyncio.Event()
        self._memory = Table(spool_file.in_memory(), most_bytes=min(most_bytes, _MEMORY_BYTES))
        self._file: Table | None = None
        self._looked_at_s, self._dropped = 0.0, 0
        self._reopen()
        if len(self):
            self._filled.set()

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(table.count() for table in self._tables())

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages that wait, with their topics."""
        return sum(table.bytes for table in self._tables())

    @property
    def dropped(self) -> int:
        """How many messages were dropped since the spool was made: no room, or refused."""
        with contextlib.suppress(sqlite3.Error):  # a disk that fails: what was known last
            self._dropped = sum(table.dropped() for table in self._tables())
        return self._dropped

    def losses(self) -> list[Loss]:
        """What was dropped and not told yet; told from now on."""
        found = []
        for table in self._tables():
            try:
                found += table.losses()
                table.told()
            except sqlite3.Error as error:
                log.warning("cannot note what was told: %s", error)
        return found

    def put(
        self,
        kind: Kind,
        topic: str,
        payload: bytes,
        *,
        correlation: bytes | None = None,
        expires_at_s: float | None = None,
    ) -> None:
        """Keep one message until it is sent; over the bound, make room by rank, then by age."""

        def insert(table: Table) -> None:
            table.insert(
                kind, topic, payload, correlation=correlation, expires_at_s=expires_at_s,
                now_s=self._clock(),
            )  # fmt: skip

        try:
            self._in_file(insert)
        except (OSError, sqlite3.Error) as error:
            log.warning("cannot spool a message for %s: %s; it waits in memory", topic, error)
            insert(self._memory)
        self._filled.set()

    async def drain(self, publish: Publish) -> int:
        """Send what waits, oldest first; each is removed once `publish` returns (its PUBACK).

        Eight travel together, so after a lost connection some may arrive twice or out of order.
        Returns how many were sent. A message that has expired, or that the broker will never
        take (BadInput, Refused), is dropped and counted.

        Raises:
            Unavailable: a publish failed so; what was not acknowledged stays.
        """
        self._filled.clear()
        sent = 0
        for table in self._tables():
            while batch := table.oldest(_TOGETHER):
                sent += await self._send(table, batch, publish)
            table.give_space_back()
        return sent

    async def keep_draining(
        self,
        publish: Publish,
        *,
        online: Callable[[], Awaitable[None]],
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        """Drain whenever something waits and `online()` returns; runs until cancelled.

        `on_empty` is called each time that everything was sent.
        """
        while True:
            await self._filled.wait()
            await online()
            try:
                await self.drain(publish)
                on_empty()
            except Unavailable:
                self._filled.set()
                await asyncio.sleep(_PAUSE_S)  # the link has told why; do not spin while it fails
            except sqlite3.Error as error:
                self._filled.set()
                await asyncio.sleep(_PAUSE_S)
                self._heal(error)

    def close(self) -> None:
        """Close the file."""
        for table in self._tables():
            table.close()

    async def _send(self, table: Table, batch: list[Waiting], publish: Publish) -> int:
        now_s = self._clock()
        live = [m for m in batch if m.expires_at_s is None or m.expires_at_s > now_s]
        results = await asyncio.gather(*map(publish, live), return_exceptions=True)
        ends = list(zip(live, results, strict=True))
        done = [message for message, result in ends if result is None]
        lost = [message for message, result in ends if isinstance(result, _NEVER)]
        lost += [message for message in batch if message not in live]
        failed = [r for r in results if isinstance(r, BaseException) and not isinstance(r, _NEVER)]
        try:
            table.remove(done, lost=lost)
        except sqlite3.Error as error:
            if spool_file.is_damage(error) or failed:
                raise
            table.pass_over(batch)  # the disk is full or read-only: what was sent was sent
        for result in results:
            if isinstance(result, _NEVER):
                log.warning("dropped a message: %s", result)
        for failure in failed:
            raise failure
        return len(done)

    def _tables(self) -> list[Table]:
        return [self._memory] if self._file is None else [self._file, self._memory]

    def _in_file(self, work: Callable[[Table], None]) -> None:
        """Do it in the file; where that is damaged, in another.

        Raises:
            OSError, sqlite3.Error: the disk is in the way.
        """
        if self._file is None and time.monotonic() >= self._looked_at_s + _LOOK_AGAIN_S:
            self._reopen()
        if self._file is None:
            raise OSError(f"no file {self._path}")
        try:
            work(self._file)
        except sqlite3.Error as error:
            if not self._heal(error):
                raise
            work(self._file)

    def _reopen(self) -> None:
        self._looked_at_s = time.monotonic()
        try:
            database = spool_file.in_file(self._path)
            self._file = Table(database, most_bytes=self._most_bytes)
        except (OSError, sqlite3.Error) as error:
            log.error("cannot open the spool %s: %s; messages wait in memory", self._path, error)

    def _heal(self, error: sqlite3.Error) -> bool:
        """Begin anew where the file is damaged; whether it was."""
        if self._file is None or not spool_file.is_damage(error):
            return False
        self._file.close()
        self._file = None
        try:
            database = spool_file.begin_anew(self._path, why=str(error))
        except (OSError, sqlite3.Error) as failure:
            log.error("cannot begin the spool anew: %s", failure)
            return False
        self._file = Table(database, most_bytes=self._most_bytes)
        return True
