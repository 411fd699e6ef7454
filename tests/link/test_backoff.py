"""When the next attempt comes: the rule, for every count of failures."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from agent.config import Broker
from agent.link import backoff
from agent.link.backoff import Ended

BROKER = Broker(reconnect_least_s=1, reconnect_most_s=120)


@given(st.integers(1, 10_000), st.randoms(use_true_random=False))
def test_the_wait_is_between_zero_and_the_cap(failures: int, source: random.Random) -> None:
    wait_s = backoff.wait_s(failures, Ended("x"), broker=BROKER, uniform=source.uniform)
    assert 0 <= wait_s <= min(120, 2.0 ** min(failures, 32))


def test_the_ceiling_doubles_until_the_cap() -> None:
    ceilings = [
        backoff.wait_s(n, Ended("x"), broker=BROKER, uniform=lambda _, high: high)
        for n in range(1, 9)
    ]
    assert ceilings == [2, 4, 8, 16, 32, 64, 120, 120]


@given(st.integers(1, 100), st.randoms(use_true_random=False))
def test_after_a_takeover_we_stay_away_at_least_half_the_cap(
    failures: int, source: random.Random
) -> None:
    ended = Ended("x", lasted_s=5.0, taken_over=True)
    assert 60 <= backoff.wait_s(failures, ended, broker=BROKER, uniform=source.uniform) <= 120


def test_only_a_connection_that_lasted_clears_the_count() -> None:
    assert backoff.next_failures(7, Ended("x", lasted_s=3600.0)) == 1
    assert backoff.next_failures(7, Ended("x", lasted_s=1.0)) == 8
    assert backoff.next_failures(7, Ended("x")) == 8


async def test_stopping_ends_a_long_wait() -> None:
    stopping = asyncio.Event()
    attempts = []

    async def attempt() -> Ended:
        attempts.append(1)
        asyncio.get_running_loop().call_soon(stopping.set)
        return Ended("nobody there")

    await asyncio.wait_for(
        backoff.keep_trying(
            attempt,
            broker=BROKER,
            stopping=stopping,
            uniform=lambda *_: 1e6,
        ),
        10,
    )
    assert len(attempts) == 1
