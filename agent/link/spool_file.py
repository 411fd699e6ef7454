"""The spool's database: opened, checked, and begun anew where it is damaged.

WAL, synchronous NORMAL: what was put survives a kill of the process; a power cut may take the
last moments, and never the database.
"""

import logging
import sqlite3
from pathlib import Path

# https://www.sqlite.org/rescode.html: these say that the disk is in the way, not the file.
_NOT_DAMAGE = tuple(
    f"SQLITE_{name}" for name in ("CANTOPEN", "IOERR", "BUSY", "FULL", "READONLY", "PERM", "NOMEM")
)
_TABLES = """\
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rank INTEGER NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    correlation BLOB,
    expires_at_s REAL,
    put_at_s REAL NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS dropped (
    rank INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    untold INTEGER NOT NULL,
    from_s REAL NOT NULL,
    to_s REAL NOT NULL
);
"""

log = logging.getLogger(__name__)


def in_memory() -> sqlite3.Connection:
    """A database that ends with the process."""
    database = sqlite3.connect(":memory:")
    database.executescript(_TABLES)
    return database


def in_file(path: Path) -> sqlite3.Connection:
    """Open or make the database in a file; one that is damaged is set aside and begun anew.

    Raises:
        OSError, sqlite3.Error: the disk is in the way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return begin_anew(path, why=str(error))


def begin_anew(path: Path, *, why: str) -> sqlite3.Connection:
    """Set a damaged file aside as `NAME.corrupt`, and make another."""
    aside = path.with_name(path.name + ".corrupt")
    log.error("cannot read the spool %s: %s; set aside as %s, begun anew", path, why, aside.name)
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return _open(path)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is damaged, and not that the disk is in the way."""
    # Errors of the module itself (a closed database, a bad call) carry no name.
    name = getattr(error, "sqlite_errorname", "")
    return bool(name) and not name.startswith(_NOT_DAMAGE)


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("PRAGMA synchronous = NORMAL")
        found = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            error = sqlite3.DatabaseError(str(found))
            error.sqlite_errorname = "SQLITE_CORRUPT"
            raise error
        database.executescript(_TABLES)
        database.execute("SELECT id, rank, topic, payload, correlation, expires_at_s, put_at_s,"
                         " bytes FROM waiting LIMIT 1")  # fmt: skip
        database.execute("SELECT rank, messages, untold, from_s, to_s FROM dropped LIMIT 1")
    except BaseException:
        database.close()
        raise
    return database
