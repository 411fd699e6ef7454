"""A supervisor with a real server, and ears for what it tells."""

from collections.abc import AsyncIterator

import pytest

from agent.host.supervisor import Supervisor
from tests.host.asking import QUICK, Ears


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def supervisor(ears: Ears) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        host="127.0.0.1",
        port=0,
        on_crash=ears.crashed,
        on_counters=ears.statuses.append,
        pace=QUICK,
    )
    await supervisor.start()
    yield supervisor
    await supervisor.stop()
