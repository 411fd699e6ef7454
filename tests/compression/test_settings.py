"""Other ways to run a candidate: which help with what a budget asks, and which are not tried."""

import pytest

from compression.choosing import settings
from compression.job import Budget, PassSpec, Recipe, Runtime
from tests.compression.test_ladder import measured

ONE, TWO = Runtime(threads=1), Runtime(threads=2)

CASES = {
    "met": (Budget(latency_p95_ms=10), ONE, None),
    "more threads may do": (Budget(latency_p95_ms=6), ONE, 2),
    "even if every thread helped fully it would miss": (Budget(latency_p95_ms=2), ONE, None),
    "their number is given": (Budget(latency_p95_ms=6, threads=1), ONE, None),
    "a ratio is between runs with as many": (Budget(latency_ratio=0.3), ONE, None),
    "one thread takes less of the CPU": (Budget(cpu_share=0.01, request_rate_hz=10), TWO, 1),
    "it is one already": (Budget(cpu_share=0.01, request_rate_hz=10), ONE, None),
    "the size is missed too": (Budget(latency_p95_ms=6, size_mib=0.5), ONE, None),
    "so is the agreement": (Budget(latency_p95_ms=6, min_agreement=0.999), ONE, None),
}


@pytest.mark.parametrize("case", CASES)
def test_threads_are_changed_where_that_alone_may_meet_the_budget(case: str) -> None:
    budget, how, threads = CASES[case]
    found = settings.otherwise(measured(threads=how.threads), how, budget, cores=4)
    assert found == (None if threads is None else how.model_copy(update={"threads": threads}))


def test_no_more_threads_than_there_are_cores() -> None:
    budget = Budget(latency_p95_ms=4)
    assert settings.otherwise(measured(threads=2), TWO, budget, cores=3) is None  # 5 would do
    near = settings.otherwise(measured(threads=2), TWO, Budget(latency_p95_ms=7), cores=3)
    assert near == Runtime(threads=3)


def test_a_prepared_file_is_loaded_as_it_is() -> None:
    plain, ready = Recipe(label="l"), Recipe(label="l", passes=(PassSpec(name="prepared"),))
    assert settings.usual(plain, 2) == Runtime(threads=2)
    assert settings.usual(ready, 2) == Runtime(threads=2, optimization="disabled")


def test_what_costs_no_time_is_the_first_way() -> None:
    assert [how.pattern for how in settings.ways(1, ready=False)] == [True, False]
