"""Messages waiting for the link: bounded, on disk; the oldest telemetry goes first, replies never.

One SQLite table (WAL, synchronous NORMAL): what was put survives a kill of the process; a power
cut may take the last moments, and never the database.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.errors import BadInput, Refused, Unavailable

Kind = Literal["telemetry", "event", "reply"]
RANKS: dict[Kind, int] = {"telemetry": 0, "event": 1, "reply": 2}
"""What is dropped first when room runs out; the highest rank never is."""
_NEVER = (BadInput, Refused)
"""What a publish raises that will not go better the next time."""
_TOGETHER = 8
_PAUSE_S = 0.2
# https://www.sqlite.org/rescode.html: these say that the disk is in the way, not the file.
_NOT_DAMAGE = tuple(
    f"SQLITE_{name}" for name in ("CANTOPEN", "IOERR", "BUSY", "FULL", "READONLY", "PERM", "NOMEM")
)
_OVERHEAD_BYTES = 64
_TABLE = """\
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rank INTEGER NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    correlation BLOB,
    expires_at_s REAL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS dropped (messages INTEGER NOT NULL);
INSERT INTO dropped SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM dropped);
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """One message in the spool; `expires_at_s` is in seconds since 1970."""

    id: int
    topic: str
    payload: bytes
    correlation: bytes | None
    expires_at_s: float | None


Publish = Callable[[Waiting], Awaitable[None]]


class Spool:
    """The messages of one agent, in one file. Used from one thread."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        """Open or make it; a file that is damaged is set aside as `NAME.corrupt`.

        Raises:
            Unavailable: the folder cannot be written.
        """
        self._path = path
        self._most_bytes = most_bytes
        self._filled = asyncio.Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = _open(path)
        except OSError as error:
            raise Unavailable(f"cannot open the spool {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise Unavailable(f"cannot open the spool {path}: {error}") from error
            self._database = _begin_anew(path, why=str(error))
        self._bytes = int(self._one("SELECT coalesce(sum(bytes), 0) FROM waiting"))
        if len(self):
            self._filled.set()

    def __len__(self) -> int:
        """How many messages wait."""
        return int(self._one("SELECT count(*) FROM waiting"))

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the messages that wait, with their topics."""
        return self._bytes

    @property
    def dropped(self) -> int:
        """How many messages were dropped since the spool was made: no room, or refused."""
        return int(self._one("SELECT messages FROM dropped"))

    def put(
        self,
        kind: Kind,
        topic: str,
        payload: bytes,
        *,
        correlation: bytes | None = None,
        expires_at_s: float | None = None,
    ) -> None:
        """Keep one message until it is sent; over the bound, make room by rank, then by age.

        Raises:
            Unavailable: the disk is full or failing.
        """
        size = len(payload) + len(topic) + _OVERHEAD_BYTES
        row = (RANKS[kind], topic, payload, correlation, expires_at_s, size)
        try:
            try:
                self._insert(row, size)
            except sqlite3.DatabaseError as error:
                self._heal(error)
                self._insert(row, size)
        except sqlite3.Error as error:
            raise Unavailable(f"cannot spool a message for {topic}: {error}") from error
        self._filled.set()

    async def drain(self, publish: Publish, *, now_s: Callable[[], float] = time.time) -> int:
        """Send what waits, oldest first; each is removed once `publish` returns (its PUBACK).

        Eight travel together, so after a lost connection some may arrive twice or out of order.
        Returns how many were sent. A message that has expired, or that the broker will never
        take (BadInput, Refused), is dropped and counted.

        Raises:
            Unavailable: a publish failed so; what was not acknowledged stays.
        """
        sent = 0
        while batch := self._oldest():
            live = [m for m in batch if m.expires_at_s is None or m.expires_at_s > now_s()]
            results = await asyncio.gather(*map(publish, live), return_exceptions=True)
            done = [m for m, result in zip(live, results, strict=True) if result is None]
            refused = [
                m for m, result in zip(live, results, strict=True) if isinstance(result, _NEVER)
            ]
            expired = [m for m in batch if m not in live]
            self._remove(done, dropped=False)
            self._remove(refused + expired, dropped=True)
            sent += len(done)
            for result in results:
                if isinstance(result, BaseException) and not isinstance(result, _NEVER):
                    raise result
                if isinstance(result, _NEVER):
                    log.warning("dropped a message: %s", result)
        self._filled.clear()
        self._give_space_back()
        return sent

    async def keep_draining(
        self, publish: Publish, *, online: Callable[[], Awaitable[None]]
    ) -> None:
        """Drain whenever something waits and `online()` returns; runs until cancelled."""
        while True:
            await self._filled.wait()
            await online()
            try:
                await self.drain(publish)
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)  # the link has told why; do not spin while it fails
            except sqlite3.DatabaseError as error:
                await asyncio.sleep(_PAUSE_S)
                with contextlib.suppress(sqlite3.Error):  # the disk is in the way: try again
                    self._heal(error)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _insert(self, row: tuple[object, ...], size: int) -> None:
        with self._database:
            self._database.execute(
                "INSERT INTO waiting (rank, topic, payload, correlation, expires_at_s, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            freed = self._make_room(self._bytes + size - self._most_bytes)
        self._bytes += size - freed

    def _heal(self, error: sqlite3.DatabaseError) -> None:
        """Begin anew where the file is damaged; raise the error again where it is not."""
        if not _is_damage(error):
            raise error
        self._database.close()
        self._database = _begin_anew(self._path, why=str(error))
        self._bytes = 0
        self._filled.clear()

    def _one(self, query: str) -> float:
        (value,) = self._database.execute(query).fetchone()
        return float(value)

    def _oldest(self) -> list[Waiting]:
        rows = self._database.execute(
            "SELECT id, topic, payload, correlation, expires_at_s FROM waiting ORDER BY id LIMIT ?",
            (_TOGETHER,),
        )
        return [Waiting(*row) for row in rows]

    def _make_room(self, excess_bytes: int) -> int:
        """Drop messages worth at least `excess_bytes`, where droppable ones are left."""
        freed, ids = 0, []
        if excess_bytes > 0:
            rows = self._database.execute(
                "SELECT id, bytes FROM waiting WHERE rank < ? ORDER BY rank, id",
                (RANKS["reply"],),
            )
            for each, size in rows:
                if freed >= excess_bytes:
                    break
                freed += size
                ids.append((each,))
        self._delete(ids, dropped=True)
        return freed

    def _remove(self, messages: list[Waiting], *, dropped: bool) -> None:
        if messages:
            with self._database:
                self._delete([(message.id,) for message in messages], dropped=dropped)
            self._bytes = int(self._one("SELECT coalesce(sum(bytes), 0) FROM waiting"))

    def _delete(self, ids: list[tuple[int]], *, dropped: bool) -> None:
        self._database.executemany("DELETE FROM waiting WHERE id = ?", ids)
        if dropped and ids:
            self._database.execute("UPDATE dropped SET messages = messages + ?", (len(ids),))

    def _give_space_back(self) -> None:
        # Without it the file keeps the size that it had on the worst day.
        with contextlib.suppress(sqlite3.Error):
            # As a script: a plain execute takes one step, and one step frees one page.
            self._database.executescript("PRAGMA incremental_vacuum")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = NORMAL")
        found = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise _damage(str(found))
        database.executescript(_TABLE)
        database.execute(
            "SELECT id, rank, topic, payload, correlation, expires_at_s, bytes FROM waiting LIMIT 1"
        )
    except BaseException:
        database.close()
        raise
    return database


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # Errors of the module itself (a closed database, a bad call) carry no name.
    name = getattr(error, "sqlite_errorname", "")
    return bool(name) and not name.startswith(_NOT_DAMAGE)


def _damage(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def _begin_anew(path: Path, *, why: str) -> sqlite3.Connection:
    aside = path.with_name(path.name + ".corrupt")
    log.error("cannot read the spool %s: %s; set aside as %s, begun anew", path, why, aside.name)
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _open(path)
