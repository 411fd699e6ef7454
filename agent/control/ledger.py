"""Which commands were begun, what was answered, and how late it is at least; on disk.

A device without a clock of its own wakes up in 1970. Until something sets its clock, the latest
time that it has ever known is the best that it has: what expired before that stays expired.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from agent.protocol.commands import Command
from agent.protocol.events import Reply
from compression import durable
from compression.words import Words

log = logging.getLogger(__name__)

UNSET_BEFORE_S = 1_735_689_600.0
"""1 January 2025: a clock that shows less was never set."""
_REMEMBERED = 1000


class _Entry(Words):
    expires_at_s: float
    reply: Reply | None = None
    """None while it is being done."""


class _Pages(Words):
    known_s: float = 0.0
    entries: dict[str, _Entry] = Field(default_factory=dict)


class Ledger:
    """The ids that were handled, until they expire."""

    def __init__(self, path: Path) -> None:
        """Read the ledger at `path`; a damaged one is begun anew (its commands have expired
        or will be refused as older than what serves)."""
        self._path = path
        self._pages = _Pages()
        try:
            self._pages = _Pages.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.warning("cannot read %s, beginning anew: %s", path, error)

    def answer(self, command_id: str) -> Reply | None:
        """What was answered to this id."""
        entry = self._pages.entries.get(command_id)
        return entry.reply if entry else None

    def begun(self, command_id: str) -> bool:
        """Whether it was begun and never answered: the power went while it was obeyed."""
        entry = self._pages.entries.get(command_id)
        return entry is not None and entry.reply is None

    def now_s(self, clock: Callable[[], float], *, issued_at_s: float) -> float:
        """Seconds since 1970, as well as this device can know.

        A clock that was set is believed. One that was not says less than the latest time known,
        and than the time at which a trusted operator has issued a command that is here.
        """
        shown_s = clock()
        if shown_s >= UNSET_BEFORE_S:
            return shown_s
        return max(shown_s, self._pages.known_s, issued_at_s)

    def begin(self, command: Command, *, now_s: float) -> None:
        """Note that a command is being done, before it is."""
        self._write(command, None, now_s=now_s)

    def remember(self, command: Command, reply: Reply, *, now_s: float) -> None:
        """Make an answer durable. Where the disk is full it is only known until a restart: what
        was done is done, and whoever asked shall hear of it."""
        self._write(command, reply, now_s=now_s)

    def _write(self, command: Command, reply: Reply | None, *, now_s: float) -> None:
        kept = [(k, e) for k, e in self._pages.entries.items() if e.expires_at_s > now_s]
        entry = _Entry(expires_at_s=command.expires_at_s, reply=reply)
        self._pages = _Pages(
            known_s=max(self._pages.known_s, now_s),
            entries=dict(kept[-_REMEMBERED + 1 :]) | {command.id: entry},
        )
        try:
            durable.replace(self._path, self._pages.to_json(), mode=0o600)
        except OSError as error:
            log.warning("cannot keep the answer to %s: %s", command.id, error)
