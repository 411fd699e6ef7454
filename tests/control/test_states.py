"""The state table, walked as a graph."""

import pytest

from agent.control.states import DEADLINE_S, REST, TRANSITIONS, WORKING, Event, State
from agent.control.steps import STEPS


def reachable(start: State) -> set[State]:
    found, open_ = {start}, [start]
    while open_:
        state = open_.pop()
        for (source, _), target in TRANSITIONS.items():
            if source is state and target not in found:
                found.add(target)
                open_.append(target)
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(State.VERIFYING) == set(State)


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_reaches_each_rest(state: State) -> None:
    assert reachable(state) >= set(REST)


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_has_a_step_and_a_deadline(state: State) -> None:
    assert state in STEPS
    assert DEADLINE_S[state] > 0


@pytest.mark.parametrize("state", [s for s in WORKING if s is not State.RESTORING])
@pytest.mark.parametrize("event", [Event.REFUSED, Event.FAILED, Event.CANCELLED])
def test_every_bad_end_restores_first(state: State, event: Event) -> None:
    assert TRANSITIONS[state, event] is State.RESTORING


@pytest.mark.parametrize("state", REST)
def test_nothing_leaves_a_rest_but_a_new_command(state: State) -> None:
    assert not [key for key in TRANSITIONS if key[0] is state]
