"""Command in, reply out: verified, meant for us, not expired, each id handled at most once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import Key

from agent.control.ledger import Ledger
from agent.errors import BadInput, Corrupt, Refused, TrimtabError
from agent.protocol import commands, trust
from agent.protocol.commands import Command
from agent.protocol.events import Outcome, Reply

Handler = Callable[[Command], Awaitable[tuple[Outcome, str, dict[str, Any]]]]
_HARMLESS = frozenset({"ping", "describe", "infer"})
"""Nothing is changed by these, so nothing need be noted before."""


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
        now_s = self._ledger.now_s(self._clock, issued_at_s=command.issued_at_s)
        if command.expires_at_s <= now_s:
            return self._reply(command, "refused", _expired(command, now_s))
        interrupted = self._ledger.begun(command.id)
        if command.body.kind not in _HARMLESS:
            self._ledger.begin(command, now_s=now_s)
        reply = await self._obey(command)
        if interrupted and reply.outcome != "accepted":
            message = f"begun before a restart, so perhaps it was done: {reply.message}"
            reply = reply.model_copy(update={"message": message})
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


def _expired(command: Command, now_s: float) -> str:
    shown = datetime.fromtimestamp(now_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    late_s = now_s - command.expires_at_s
    return f"cannot obey: expired {late_s:.0f} s ago, by this device's clock ({shown} UTC)"
