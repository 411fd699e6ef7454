"""The counters: whatever replies are lost, each request is counted once."""

import math

from hypothesis import given
from hypothesis import strategies as st

from agent.serving.meter import Counts, Key, Ledger, Meter, Times, Totals

KEYS = [Key("a", 1, "0" * 64), Key("a", 2, "1" * 64), Key("b", 1, "2" * 64)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.sampled_from(KEYS), st.floats(0.001, 5000)),
        st.tuples(st.just("fail"), st.sampled_from(KEYS), st.just(0.0)),
        st.tuples(st.sampled_from(["poll", "lost"]), st.sampled_from(KEYS), st.just(0.0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_request_is_counted_once_whatever_replies_are_lost(
    steps: list[tuple[str, Key, float]],
) -> None:
    ledger = Ledger()
    true = dict.fromkeys(KEYS, (0, 0, 0.0))
    received: dict[Key, Counts] = {}
    acknowledged = 0
    for kind, key, latency_ms in [*steps, ("poll", KEYS[0], 0.0)]:
        requests, failures, busy_s = true[key]
        if kind == "run":
            ledger.meter(key).succeeded(Times(run=round(latency_ms * 1e6)), at_ns=0)
            true[key] = requests + 1, failures, busy_s + latency_ms / 1e3
        elif kind == "fail":
            ledger.meter(key).failed(1)
            true[key] = requests + 1, failures + 1, busy_s
        else:  # a variant that is not live is forgotten, but never what it did
            sequence, counts = ledger.poll(acknowledged=acknowledged, live=frozenset({key}))
            if kind == "poll":
                acknowledged = sequence
                for counted, each in counts.items():
                    received[counted] = received.get(counted, Counts()).plus(each)
    for key, (requests, failures, busy_s) in true.items():
        total = received.get(key, Counts())
        assert (total.requests, total.failures) == (requests, failures)
        assert math.isclose(total.busy_s, busy_s, abs_tol=1e-6)
        assert total.latency_ms.count == requests - failures


def test_what_is_acknowledged_is_not_told_again() -> None:
    ledger = Ledger()
    ledger.meter(KEYS[0]).succeeded(Times(run=1_000_000), at_ns=0)
    sequence, counts = ledger.poll(acknowledged=0, live=frozenset(KEYS[:1]))
    assert counts[KEYS[0]].requests == 1
    _, counts = ledger.poll(acknowledged=sequence, live=frozenset(KEYS[:1]))
    assert counts[KEYS[0]].requests == 0


def test_a_variant_that_has_gone_is_told_until_it_is_acknowledged() -> None:
    ledger = Ledger()
    ledger.meter(KEYS[0]).failed(7)
    ledger.poll(acknowledged=0, live=frozenset())
    sequence, counts = ledger.poll(acknowledged=0, live=frozenset())
    assert counts[KEYS[0]].failures == 1
    assert ledger.poll(acknowledged=sequence, live=frozenset())[1] == {}


def test_an_acknowledgement_from_another_life_takes_nothing_away() -> None:
    ledger = Ledger()
    ledger.meter(KEYS[0]).failed(7)
    assert ledger.poll(acknowledged=57, live=frozenset())[1][KEYS[0]].requests == 1


def test_quantiles_hold_for_more_values_than_are_folded_at_once() -> None:
    meter = Meter()
    for value in range(1, 10_001):
        meter.succeeded(Times(value * 400_000, 0, value * 500_000, value * 100_000), at_ns=value)
    median = meter.take().latency_ms.quantile(0.5)
    assert median is not None
    assert abs(median - 5000) <= 0.015 * 5000


def test_totals_go_on_when_counts_are_taken() -> None:
    meter = Meter()
    for at_ns in range(1, 4001):
        meter.succeeded(Times(1, 2, 3, 4), at_ns=at_ns)
        if at_ns % 1500 == 0:
            meter.failed(10)
            meter.take()
    assert meter.totals() == Totals(
        answered=4000, failed=2, times=Times(4000, 8000, 12_000, 16_000), failed_ns=20, last_ns=4000
    )
    assert meter.take().requests == 1000
