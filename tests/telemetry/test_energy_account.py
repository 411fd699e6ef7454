"""The process's CPU seconds are shared among the models, and nothing is lost or made up."""

import math
from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from agent.device.energy import CpuEnergy
from agent.protocol.private import ModelStatus, ServerStatus
from agent.protocol.sketch import Quantiles
from agent.telemetry import energy_account
from agent.telemetry.energy_account import Account, Variant

SOURCE = CpuEnergy(2.0, 0.25, "a test")
A, B = Variant("a", 1, "0" * 64), Variant("b", 3, "1" * 64)


def _poll(
    sequence: int, cpu_s: float, busy: dict[Variant, float], *, pid: int = 10
) -> ServerStatus:
    models = tuple(
        ModelStatus(
            name=v.name, version=v.version, sha256=v.sha256, state="READY",
            requests=1, failures=0, busy_s=seconds, latency_ms=Quantiles(),
        )
        for v, seconds in busy.items()
    )  # fmt: skip
    return ServerStatus(sequence=sequence, pid=pid, process_cpu_s=cpu_s, rss_mib=1.0, models=models)


def _after(polls: Sequence[ServerStatus]) -> Account:
    account = Account()
    for poll in polls:
        account = energy_account.observe(account, poll, source=SOURCE)
    return account


def test_two_models_share_the_cpu_time_by_their_busy_time() -> None:
    account = _after([_poll(1, 10.0, {}), _poll(2, 14.0, {A: 3.0, B: 1.0})])
    assert account.models[A].cpu_seconds == 3.0
    assert account.models[B].joules == 2.0
    assert account.nobody.cpu_seconds == 10.0


def test_a_poll_that_comes_twice_counts_once() -> None:
    first, second = _poll(1, 1.0, {A: 1.0}), _poll(2, 4.0, {A: 1.0})
    assert _after([first, second, second, second]) == _after([first, second])


def test_a_restarted_server_starts_from_zero() -> None:
    account = _after([_poll(9, 100.0, {A: 1.0}), _poll(1, 3.0, {A: 1.0}, pid=11)])
    assert account.models[A].cpu_seconds == 103.0


def test_a_restarted_server_with_the_same_process_id_is_seen_by_its_sequence_or_its_clock() -> None:
    for again in (_poll(1, 150.0, {A: 1.0}), _poll(10, 3.0, {A: 1.0})):
        account = _after([_poll(9, 100.0, {A: 1.0}), again])
        assert account.models[A].cpu_seconds == 100.0 + again.process_cpu_s


def test_an_emptied_account_goes_on_from_the_last_poll() -> None:
    account = energy_account.emptied(_after([_poll(1, 10.0, {A: 1.0})]))
    assert not account.models
    account = energy_account.observe(account, _poll(2, 11.5, {A: 1.0}), source=SOURCE)
    assert account.models[A].cpu_seconds == 1.5


VARIANTS = st.sampled_from([A, B, Variant("b", 3, "2" * 64), Variant("c", 1, "3" * 64)])
# Shares of the delta, whether the server restarts before it, and busy seconds.
STEPS = st.lists(
    st.tuples(
        st.floats(0, 1e4), st.booleans(), st.dictionaries(VARIANTS, st.floats(0, 1e3), max_size=4)
    ),
    max_size=40,
)


@given(STEPS)
@example([(1.5, False, {A: 5e-324})])
def test_models_and_nobody_sum_to_what_the_processes_used(
    steps: list[tuple[float, bool, dict[Variant, float]]],
) -> None:
    polls, pid, clock, sequence, spent = [], 1, 0.0, 0, 0.0
    for delta_s, restarts, busy in steps:
        if restarts:
            pid, clock, sequence = pid + 1, 0.0, 0
        before, clock, sequence = clock, clock + delta_s, sequence + 1
        spent += clock - before
        polls.append(_poll(sequence, clock, busy, pid=pid))
    account = _after(polls)
    shared = sum(each.cpu_seconds for each in account.models.values()) + account.nobody.cpu_seconds
    assert math.isclose(shared, spent, rel_tol=1e-9, abs_tol=1e-9)
    assert all(each.cpu_seconds >= 0 for each in account.models.values())
    idle = {v for _, _, busy in steps for v in busy} - {
        v for _, _, busy in steps for v, seconds in busy.items() if seconds > 0
    }
    assert not idle & set(account.models)
