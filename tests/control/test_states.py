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
def test_nothing_leaves_a_rest_but_a_command_or_a_crash(state: State) -> None:
    leaving = {event: target for (source, event), target in TRANSITIONS.items() if source is state}
    assert leaving == {Event.BACK: State.RESTORING, Event.CRASHED: State.RESTORING}


@pytest.mark.parametrize("state", list(State))
def test_every_state_can_be_rolled_back(state: State) -> None:
    assert TRANSITIONS[state, Event.BACK] is State.RESTORING


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_has_an_answer_to_a_crash_of_what_serves(state: State) -> None:
    wanted = State.RESTORING if state is State.OBSERVING else state
    assert TRANSITIONS[state, Event.CRASHED] is wanted


def test_only_trying_and_restoring_lead_to_themselves() -> None:
    alone = {
        (source, event) for (source, event), target in TRANSITIONS.items()
        if source is target and event is not Event.CRASHED
    }  # fmt: skip
    assert alone == {
        (State.TRYING, Event.AGAIN),
        (State.RESTORING, Event.CANCELLED),
        (State.RESTORING, Event.BACK),
    }
