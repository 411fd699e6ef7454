"""Messages in one SQLite database, in the file or in memory: kept, counted, dropped by rank."""

import contextlib
import sqlite3
from dataclasses import dataclass
from typing import Literal

Kind = Literal["telemetry", "event", "reply"]
RANKS: dict[Kind, int] = {"telemetry": 0, "event": 1, "reply": 2}
"""What is dropped first when room runs out; the highest rank never is."""
_KINDS = {rank: kind for kind, rank in RANKS.items()}
_OVERHEAD_BYTES = 64


@dataclass(frozen=True)
class Waiting:
    """One message in the spool; `expires_at_s` is in seconds since 1970."""

    id: int
    topic: str
    payload: bytes
    correlation: bytes | None
    expires_at_s: float | None


@dataclass(frozen=True)
class Loss:
    """Messages of one kind that were dropped and that nobody was told of; when they were put."""

    kind: Kind
    messages: int
    from_s: float
    to_s: float


class Table:
    """The messages of one database. Used from one thread; raises sqlite3.Error."""

    def __init__(self, database: sqlite3.Connection, *, most_bytes: int) -> None:
        """Count what is there; over `most_bytes` messages are dropped by rank, then by age."""
        self._database, self._most_bytes = database, most_bytes
        self._past = 0
        """Up to this id everything was sent, also where the disk refuses to delete it."""
        self.bytes = self._sum()

    def count(self) -> int:
        """How many messages wait."""
        query = "SELECT count(*) FROM waiting WHERE id > ?"
        return int(self._database.execute(query, (self._past,)).fetchone()[0])

    def insert(
        self,
        kind: Kind,
        topic: str,
        payload: bytes,
        *,
        correlation: bytes | None,
        expires_at_s: float | None,
        now_s: float,
    ) -> None:
        """Keep one message, and make room for it."""
        size = len(payload) + len(topic) + _OVERHEAD_BYTES
        with self._database:
            self._database.execute(
                "INSERT INTO waiting"
                " (rank, topic, payload, correlation, expires_at_s, put_at_s, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (RANKS[kind], topic, payload, correlation, expires_at_s, now_s, size),
            )
            freed = self._make_room(self.bytes + size - self._most_bytes)
        self.bytes += size - freed

    def oldest(self, count: int) -> list[Waiting]:
        """The first messages that were not sent."""
        rows = self._database.execute(
            "SELECT id, topic, payload, correlation, expires_at_s FROM waiting"
            " WHERE id > ? ORDER BY id LIMIT ?",
            (self._past, count),
        )
        return [Waiting(*row) for row in rows]

    def remove(self, sent: list[Waiting], *, lost: list[Waiting]) -> None:
        """Forget messages; the `lost` ones count as dropped."""
        with self._database:
            self._drop([message.id for message in lost])
            self._delete([message.id for message in sent])
        self.bytes = self._sum()

    def pass_over(self, batch: list[Waiting]) -> None:
        """Send none of these again, although they cannot be deleted now."""
        self._past = max([self._past, *(message.id for message in batch)])

    def dropped(self) -> int:
        """How many messages were dropped since the database was made."""
        query = "SELECT coalesce(sum(messages), 0) FROM dropped"
        return int(self._database.execute(query).fetchone()[0])

    def losses(self) -> list[Loss]:
        """What was dropped since `told`."""
        rows = self._database.execute(
            "SELECT rank, untold, from_s, to_s FROM dropped WHERE untold > 0 ORDER BY rank"
        )
        return [Loss(_KINDS[rank], untold, from_s, to_s) for rank, untold, from_s, to_s in rows]

    def told(self) -> None:
        """The losses were told."""
        with self._database:
            self._database.execute("UPDATE dropped SET untold = 0, from_s = 1e18, to_s = 0")

    def give_space_back(self) -> None:
        """Without it the file keeps the size that it had on the worst day."""
        with contextlib.suppress(sqlite3.Error):
            # As a script: a plain execute takes one step, and one step frees one page.
            self._database.executescript("PRAGMA incremental_vacuum")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _sum(self) -> int:
        query = "SELECT coalesce(sum(bytes), 0) FROM waiting WHERE id > ?"
        return int(self._database.execute(query, (self._past,)).fetchone()[0])

    def _make_room(self, excess_bytes: int) -> int:
        """Drop messages worth at least `excess_bytes`, where droppable ones are left."""
        freed, ids = 0, []
        if excess_bytes > 0:
            rows = self._database.execute(
                "SELECT id, bytes FROM waiting WHERE rank < ? AND id > ? ORDER BY rank, id",
                (RANKS["reply"], self._past),
            )
            for each, size in rows:
                if freed >= excess_bytes:
                    break
                freed += size
                ids.append(each)
        self._drop(ids)
        return freed

    def _drop(self, ids: list[int]) -> None:
        self._database.executemany(
            "INSERT INTO dropped SELECT rank, 1, 1, put_at_s, put_at_s FROM waiting WHERE id = ?"
            " ON CONFLICT (rank) DO UPDATE SET messages = messages + 1, untold = untold + 1,"
            " from_s = min(from_s, excluded.from_s), to_s = max(to_s, excluded.to_s)",
            [(each,) for each in ids],
        )
        self._delete(ids)

    def _delete(self, ids: list[int]) -> None:
        self._database.executemany("DELETE FROM waiting WHERE id = ?", [(each,) for each in ids])
