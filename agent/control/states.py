"""Which state follows which; the work is in steps.py.

VERIFYING -> FETCHING -> STARTING -> COMPRESSING -> TRYING -> SWITCHING -> LIVE
                              (as-is, or nothing better: LIVE)
any of them: refused / failed / cancelled -> RESTORING -> LIVE, REFUSED or FAILED
"""

from enum import StrEnum


class State(StrEnum):
    """Where a deployment stands."""

    VERIFYING = "verifying"
    """The signed manifest is fetched and checked."""
    FETCHING = "fetching"
    """Its files come, chunk by chunk."""
    STARTING = "starting"
    """The original is measured and goes live where it fits."""
    COMPRESSING = "compressing"
    """The worker makes and measures variants."""
    TRYING = "trying"
    """The best variant is measured and judged against the budget."""
    SWITCHING = "switching"
    """The server loads it beside what runs, and switches."""
    RESTORING = "restoring"
    """What served before is made sure of."""
    LIVE = "live"
    REFUSED = "refused"
    FAILED = "failed"


class Event(StrEnum):
    """How a step ended."""

    DONE = "done"
    SETTLED = "settled"
    """What serves now is the best there is; the reason is in the record."""
    AGAIN = "again"
    """The same step once more, with the next candidate."""
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


REST = (State.LIVE, State.REFUSED, State.FAILED)
WORKING = tuple(state for state in State if state not in REST)

_S, _E = State, Event
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.VERIFYING, _E.DONE): _S.FETCHING,
    (_S.FETCHING, _E.DONE): _S.STARTING,
    (_S.STARTING, _E.DONE): _S.COMPRESSING,
    (_S.STARTING, _E.SETTLED): _S.LIVE,
    (_S.COMPRESSING, _E.DONE): _S.TRYING,
    (_S.COMPRESSING, _E.SETTLED): _S.LIVE,
    (_S.TRYING, _E.DONE): _S.SWITCHING,
    (_S.TRYING, _E.AGAIN): _S.TRYING,
    (_S.TRYING, _E.SETTLED): _S.LIVE,
    (_S.SWITCHING, _E.DONE): _S.LIVE,
    (_S.RESTORING, _E.SETTLED): _S.LIVE,
    (_S.RESTORING, _E.REFUSED): _S.REFUSED,
    (_S.RESTORING, _E.FAILED): _S.FAILED,
} | {
    (state, event): _S.RESTORING
    for state in WORKING
    if state is not _S.RESTORING
    for event in (_E.REFUSED, _E.FAILED, _E.CANCELLED)
}

DEADLINE_S: dict[State, float] = {
    _S.VERIFYING: 10 * 60,
    _S.FETCHING: 7 * 24 * 3600,
    # These three wait while another model is measured or compressed, which may take its day;
    # trials, jobs and loads have limits of their own, which end them long before.
    _S.STARTING: 7 * 24 * 3600,
    _S.COMPRESSING: 7 * 24 * 3600,
    _S.TRYING: 7 * 24 * 3600,
    _S.SWITCHING: 10 * 60,
    _S.RESTORING: 10 * 60,
}
"""Seconds of work before a state ends as failed. A link that is down counts: a pull may wait
a week for it, and the verdict on a command nobody can hear is not urgent."""
