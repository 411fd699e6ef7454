"""Which runs may hold the event loop, by what earlier ones took."""

import pytest

from agent.serving.pace import DOUBT, FORGOTTEN, INLINE_S, PROOF, Pace

QUICK_S, SLOW_S = INLINE_S / 10, INLINE_S * 10


def learn(pace: Pace, took_s: float, times: int = 1, *, certain: bool = True) -> None:
    for _ in range(times):
        pace.learn(took_s, 100, certain=certain)


def to_prove(pace: Pace) -> int:
    """How many quick runs it takes until the loop may be held."""
    count = 0
    while not pace.quick(100):
        learn(pace, QUICK_S)
        count += 1
    return count


def test_a_model_that_was_never_quick_has_to_show_it_once() -> None:
    assert to_prove(Pace()) == 1


@pytest.mark.parametrize("size", [100, 200])
def test_a_quick_model_holds_the_loop_for_inputs_as_those_it_was_quick_on(size: int) -> None:
    assert Pace(QUICK_S, 100).quick(size)
    assert not Pace(QUICK_S, 100).quick(201)
    assert not Pace(SLOW_S, 100).quick(size)


def test_a_slow_run_by_cpu_time_asks_for_a_long_proof() -> None:
    pace = Pace(QUICK_S, 100)
    learn(pace, SLOW_S)
    assert to_prove(pace) == PROOF


def test_a_slow_run_by_wall_time_asks_for_a_short_proof_that_grows_while_it_happens() -> None:
    pace, asked = Pace(QUICK_S, 100), []
    for _ in range(6):
        learn(pace, SLOW_S, certain=False)
        asked.append(to_prove(pace))
    assert asked == [DOUBT, 2 * DOUBT, 4 * DOUBT, 8 * DOUBT, PROOF, PROOF]


def test_a_doubt_is_forgotten_after_many_quick_runs() -> None:
    pace = Pace(QUICK_S, 100)
    for _ in range(3):
        learn(pace, SLOW_S, certain=False)
        learn(pace, QUICK_S, FORGOTTEN, certain=False)
    learn(pace, SLOW_S, certain=False)
    assert to_prove(pace) == DOUBT
