"""Command in, reply out: verified, meant for us, not expired, each id handled at most once."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from securesystemslib.signer import Key

from agent.errors import BadInput, Corrupt, Refused, TrimtabError
from agent.protocol import commands, trust
from agent.protocol.commands import Command
from agent.protocol.events import Outcome, Reply
from compression import durable

log = logging.getLogger(__name__)

Handler = Callable[[Command], Awaitable[tuple[Outcome, str, dict[str, Any]]]]
_REMEMBERED = 1000


class Ledger:
    """The ids that were handled and what was answered, on disk, until they expire."""

    def __init__(self, path: Path) -> None:
        """Read the ledger at `path`; a damaged one is begun anew (its commands have expired
        or will be refused as older than what serves)."""
        self._path = path
        self._entries: dict[str, tuple[float, Reply]] = {}
        try:
            document = json.loads(path.read_bytes())
            self._entries = {
                key: (float(expires), Reply.model_validate(reply))
                for key, (expires, reply) in document.items()
            }
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, AttributeError, ValidationError) as error:
            log.warning("cannot read %s, beginning anew: %s", path, error)

    def answer(self, command_id: str) -> Reply | None:
        """What was answered to this id."""
        entry = self._entries.get(command_id)
        return entry[1] if entry else None

    def remember(self, command: Command, reply: Reply, *, now_s: float) -> None:
        """Make an answer durable. Where the disk is full it is only known until a restart: what
        was done is done, and whoever asked shall hear of it."""
        kept = [(k, v) for k, v in self._entries.items() if v[0] > now_s][-_REMEMBERED + 1 :]
        self._entries = dict(kept) | {command.id: (command.expires_at_s, reply)}
        document = {k: (e, r.model_dump()) for k, (e, r) in self._entries.items()}
        try:
            durable.replace(self._path, json.dumps(document).encode(), mode=0o600)
        except OSError as error:
            log.warning("cannot keep the answer to %s: %s", command.id, error)


class Dispatcher:
    """Obeys what trusted operators send."""

    def __init__(
        self,
        *,
        device: str,
        groups: Sequence[str],
        keys: Sequence[Key],
        handlers: Mapping[str, Handler],
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        """Answer for `device` and its groups; `handlers` by command kind; `clock` is UTC."""
        self._device = device
        self._audiences = {f"device/{device}", *(f"group/{group}" for group in groups)}
        self._keys = keys
        self._handlers = handlers
        self._ledger = ledger
        self._clock = clock

    async def handle(self, envelope: bytes) -> Reply:
        """Do what one command says, and answer.

        Raises:
            Corrupt, Refused, BadInput: it cannot be trusted or read, so there is nobody to
                answer; the caller tells the fleet with an event.
        """
        if len(envelope) > 2 * commands.MAX_BYTES:
            raise BadInput(f"cannot accept a command envelope of {len(envelope)} bytes")
        payload = trust.open_sealed(envelope, payload_type=trust.COMMAND, keys=self._keys)
        command = commands.parse(payload)
        if command.audience not in self._audiences:
            raise Refused(f"cannot obey a command for {command.audience!r}: not addressed to us")
        seen = self._ledger.answer(command.id)
        if seen is not None:
            return seen
        now_s = self._clock()
        if command.expires_at_s <= now_s:
            late_s = now_s - command.expires_at_s
            return self._reply(command, "refused", f"cannot obey: expired {late_s:.0f} s ago")
        reply = await self._obey(command)
        self._ledger.remember(command, reply, now_s=now_s)
        return reply

    async def _obey(self, command: Command) -> Reply:
        handler = self._handlers[command.body.kind]
        try:
            outcome, message, result = await handler(command)
        except TrimtabError as error:
            failed = isinstance(error, Corrupt)
            return self._reply(command, "failed" if failed else "refused", str(error))
        return self._reply(command, outcome, message, result)

    def _reply(
        self, command: Command, outcome: Outcome, message: str, result: dict[str, Any] | None = None
    ) -> Reply:
        return Reply(
            id=command.id,
            device=self._device,
            outcome=outcome,
            message=message,
            result=result or {},
        )
