"""A broker, and the keys of a fleet, for the tests of the operator's commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from securesystemslib.signer import Key, Signer

from agent.protocol import trust
from tests.simulators.broker import RunningBroker, iotcore_broker


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with iotcore_broker() as running:
        yield running


@pytest.fixture
def signer(key_file: Path) -> Signer:
    return trust.signer(key_file.read_bytes())


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    private, public = trust.generate()
    (tmp_path / "fleet.key").write_bytes(private)
    (tmp_path / "fleet.pub").write_bytes(public)
    return tmp_path / "fleet.key"


@pytest.fixture
def keys(key_file: Path) -> tuple[Key, ...]:
    return trust.load_keys(key_file.parent)
