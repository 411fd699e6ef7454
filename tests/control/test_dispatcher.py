"""Commands: verified, meant for us, in time, and each id once, across restarts too."""

import errno
from pathlib import Path
from typing import Any

import pytest

from agent.control.dispatcher import Dispatcher
from agent.control.ledger import UNSET_BEFORE_S, Ledger
from agent.errors import BadInput, Corrupt, Refused, Unavailable
from agent.protocol import trust
from agent.protocol.commands import KINDS, Command, Ping, Remove
from agent.protocol.events import Outcome
from compression import durable

PRIVATE, PUBLIC = trust.generate()
NOW_S = 1_800_000_000.0
PING = Ping()


def sealed(command_id: str = "command-1", *, audience: str = "device/pole-7",
           issued_at_s: float = NOW_S, expires_at_s: float = NOW_S + 60, key: bytes = PRIVATE,
           body: Ping | Remove = PING) -> bytes:  # fmt: skip
    command = Command(id=command_id, audience=audience, issued_at_s=issued_at_s,
                      expires_at_s=expires_at_s, body=body)  # fmt: skip
    return trust.seal(command.to_json(), payload_type=trust.COMMAND, by=trust.signer(key))


class Counting:
    """A handler that counts, and fails where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self.error = 0, error

    async def __call__(self, _: Command) -> tuple[Outcome, str, dict[str, Any]]:
        self.calls += 1
        if self.error:
            raise self.error
        return "done", f"call {self.calls}", {}


def dispatcher(folder: Path, handler: Counting, *, clock_s: float = NOW_S) -> Dispatcher:
    return Dispatcher(
        device="pole-7", groups=["north"], keys=[trust.public_key(PUBLIC)],
        handlers=dict.fromkeys(KINDS, handler), ledger=Ledger(folder / "commands.json"),
        clock=lambda: clock_s,
    )  # fmt: skip


@pytest.mark.parametrize("audience", ["device/pole-7", "group/north"])
async def test_obeys_what_is_addressed_to_it(tmp_path: Path, audience: str) -> None:
    reply = await dispatcher(tmp_path, Counting()).handle(sealed(audience=audience))
    assert (reply.id, reply.device, reply.outcome) == ("command-1", "pole-7", "done")


@pytest.mark.parametrize("audience", ["device/pole-8", "group/south"])
async def test_a_command_for_somebody_else_is_not_obeyed(tmp_path: Path, audience: str) -> None:
    handler = Counting()
    with pytest.raises(Refused, match="not addressed to us"):
        await dispatcher(tmp_path, handler).handle(sealed(audience=audience))
    assert not handler.calls


async def test_the_same_id_gets_the_same_answer_even_after_a_restart(tmp_path: Path) -> None:
    handler = Counting()
    first = await dispatcher(tmp_path, handler).handle(sealed())
    again = await dispatcher(tmp_path, handler).handle(sealed())
    assert again == first
    assert handler.calls == 1


async def test_an_expired_command_is_answered_so_and_not_obeyed(tmp_path: Path) -> None:
    handler = Counting()
    late = await dispatcher(tmp_path, handler).handle(sealed(expires_at_s=NOW_S - 5))
    assert (late.outcome, late.message) == (
        "refused",
        "cannot obey: expired 5 s ago, by this device's clock (2027-01-15 08:00:00 UTC)",
    )
    assert not handler.calls


async def test_a_stranger_is_not_obeyed(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not by a trusted key"):
        await dispatcher(tmp_path, Counting()).handle(sealed(key=trust.generate()[0]))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(Refused("cannot, no"), "refused"), (Unavailable("cannot now"), "refused"),
     (Corrupt("cannot read"), "failed")],
)  # fmt: skip
async def test_a_handlers_error_becomes_the_answer(
    tmp_path: Path, error: Exception, outcome: str
) -> None:
    reply = await dispatcher(tmp_path, Counting(error)).handle(sealed())
    assert (reply.outcome, reply.message) == (outcome, str(error))


async def test_an_envelope_without_end_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="20000 bytes"):
        await dispatcher(tmp_path, Counting()).handle(b"{" * 20_000)


async def test_a_damaged_ledger_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "commands.json").write_bytes(b'{"entries": {"command-1": [1,')
    reply = await dispatcher(tmp_path, Counting()).handle(sealed())
    assert reply.outcome == "done"


async def test_the_ledger_forgets_what_has_expired(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "commands.json")
    handler = Counting()
    one = dispatcher(tmp_path, handler)
    await one.handle(sealed("command-old", expires_at_s=NOW_S + 1))
    assert ledger.answer("command-old") is None  # this one was read before
    assert Ledger(tmp_path / "commands.json").answer("command-old")
    two = Dispatcher(
        device="pole-7", groups=[], keys=[trust.public_key(PUBLIC)],
        handlers=dict.fromkeys(KINDS, handler), ledger=Ledger(tmp_path / "commands.json"),
        clock=lambda: NOW_S + 10,
    )  # fmt: skip
    await two.handle(sealed("command-new"))
    assert Ledger(tmp_path / "commands.json").answer("command-old") is None
    assert Ledger(tmp_path / "commands.json").answer("command-new")


async def test_an_answer_that_cannot_be_kept_is_given_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "replace", full)
    handler = Counting()
    obeys = dispatcher(tmp_path, handler)
    assert (await obeys.handle(sealed())).outcome == "done"
    assert (await obeys.handle(sealed())).message == "call 1"
    assert handler.calls == 1


async def test_a_device_that_woke_up_in_1970_obeys_what_is_fresh(tmp_path: Path) -> None:
    handler = Counting()
    reply = await dispatcher(tmp_path, handler, clock_s=30.0).handle(sealed())
    assert reply.outcome == "done"


async def test_a_device_that_woke_up_in_1970_obeys_nothing_that_had_expired_when_it_knew(
    tmp_path: Path,
) -> None:
    """Somebody repeats an old command to a device whose clock has lost the time."""
    handler = Counting()
    await dispatcher(tmp_path, handler).handle(sealed("command-1"))
    old = sealed("command-0", issued_at_s=NOW_S - 7200, expires_at_s=NOW_S - 3600)
    late = await dispatcher(tmp_path, handler, clock_s=30.0).handle(old)
    assert (late.outcome, handler.calls) == ("refused", 1)
    assert "expired 3600 s ago" in late.message


async def test_a_clock_that_was_once_far_ahead_is_not_held_against_it(tmp_path: Path) -> None:
    handler = Counting()
    far = sealed("command-1", expires_at_s=NOW_S + 1e9)
    await dispatcher(tmp_path, handler, clock_s=NOW_S + 5e8).handle(far)
    reply = await dispatcher(tmp_path, handler).handle(sealed("command-2"))
    assert reply.outcome == "done"
    assert UNSET_BEFORE_S < NOW_S


async def test_a_command_that_was_interrupted_by_a_restart_is_answered_so(tmp_path: Path) -> None:
    class Killed(BaseException):
        """The process ended here."""

    async def dies(_: Command) -> tuple[Outcome, str, dict[str, Any]]:
        raise Killed

    dying = dispatcher(tmp_path, Counting())
    dying._handlers = dict.fromkeys(KINDS, dies)
    envelope = sealed(body=Remove(model="m"))
    with pytest.raises(Killed):
        await dying.handle(envelope)
    handler = Counting(Refused("cannot remove m: it is not deployed here"))
    again = await dispatcher(tmp_path, handler).handle(envelope)
    assert again.message == (
        "begun before a restart, so perhaps it was done: cannot remove m: it is not deployed here"
    )
    assert await dispatcher(tmp_path, handler).handle(envelope) == again
    assert handler.calls == 1
