"""Only what a trusted key signed is opened, and a changed byte shows."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput, Corrupt, Refused, TrimtabError
from agent.protocol import trust

PRIVATE, PUBLIC = trust.generate()
KEYS = [trust.public_key(PUBLIC)]
SEALED = trust.seal(b'{"a": 1}', payload_type=trust.COMMAND, by=trust.signer(PRIVATE))


def test_opens_what_a_trusted_key_signed() -> None:
    assert trust.open_sealed(SEALED, payload_type=trust.COMMAND, keys=KEYS) == b'{"a": 1}'


def test_refuses_a_stranger() -> None:
    stranger = trust.public_key(trust.generate()[1])
    with pytest.raises(Refused, match="not by a trusted key"):
        trust.open_sealed(SEALED, payload_type=trust.COMMAND, keys=[stranger])


def test_refuses_without_keys() -> None:
    with pytest.raises(Refused, match="no trusted key is configured"):
        trust.open_sealed(SEALED, payload_type=trust.COMMAND, keys=[])


def test_a_manifest_is_not_taken_for_a_command() -> None:
    with pytest.raises(Refused, match="belongs here"):
        trust.open_sealed(SEALED, payload_type=trust.MANIFEST, keys=KEYS)


def test_a_changed_payload_is_corrupt() -> None:
    document = json.loads(SEALED)
    document["payload"] = base64.b64encode(b'{"a": 2}').decode()
    with pytest.raises(Corrupt, match="cannot verify"):
        trust.open_sealed(json.dumps(document).encode(), payload_type=trust.COMMAND, keys=KEYS)


@given(st.binary(max_size=300))
def test_no_bytes_crash_it(data: bytes) -> None:
    with pytest.raises(TrimtabError):
        trust.open_sealed(data, payload_type=trust.COMMAND, keys=KEYS)


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_no_changed_byte_opens_as_something_else(at: int, flip: int) -> None:
    changed = SEALED[:at] + bytes([SEALED[at] ^ flip]) + SEALED[at + 1 :]
    try:
        opened = trust.open_sealed(changed, payload_type=trust.COMMAND, keys=KEYS)
    except TrimtabError:
        return
    assert opened == b'{"a": 1}'  # white space, or a base64 bit that carries nothing


def test_a_key_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.pub").write_bytes(PUBLIC)
    (tmp_path / "worse.pub").write_bytes(b"no key")
    with pytest.raises(BadInput, match=r"worse\.pub"):
        trust.load_keys(tmp_path)
    (tmp_path / "worse.pub").unlink()
    assert [key.keyid for key in trust.load_keys(tmp_path)] == [KEYS[0].keyid]


def test_an_rsa_key_is_not_ed25519() -> None:
    with pytest.raises(BadInput, match=r"not Ed25519|cannot use"):
        trust.signer(PUBLIC)
