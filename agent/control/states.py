"""Which state follows which; the work is in steps.py.

VERIFYING -> FETCHING -> STARTING -> COMPRESSING -> TRYING -> SWITCHING -> OBSERVING -> LIVE
                             `-> COLLECTING -^      (as-is, or nothing better: LIVE)
any of them: refused / failed / cancelled / rolled back -> RESTORING -> LIVE, REFUSED or FAILED
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
    COLLECTING = "collecting"
    """No inputs came with it: a few of those that it is asked live are kept on the device."""
    COMPRESSING = "compressing"
    """The worker makes and measures variants."""
    TRYING = "trying"
    """The best variant is measured and judged against the budget."""
    SWITCHING = "switching"
    """The server loads it beside what runs, or in its place, and switches."""
    OBSERVING = "observing"
    """It serves, while what it answers and how long it takes is compared with the original."""
    RESTORING = "restoring"
    """What served before is made sure of."""
    LIVE = "live"
    REFUSED = "refused"
    FAILED = "failed"


class Event(StrEnum):
    """How a step ended, or what came from outside."""

    DONE = "done"
    SETTLED = "settled"
    """What serves now is the best there is; the reason is in the record."""
    AGAIN = "again"
    """The same step once more, with the next candidate."""
    WITHOUT_INPUTS = "without inputs"
    """There is nothing to calibrate with; the device collects what it is asked."""
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """By command."""
    BACK = "back"
    """The command to serve again what served before."""
    CRASHED = "crashed"
    """The server gave up what serves."""


REST = (State.LIVE, State.REFUSED, State.FAILED)
WORKING = tuple(state for state in State if state not in REST)

_S, _E = State, Event
TRANSITIONS: dict[tuple[State, Event], State] = (
    {
        (_S.VERIFYING, _E.DONE): _S.FETCHING,
        (_S.FETCHING, _E.DONE): _S.STARTING,
        (_S.STARTING, _E.DONE): _S.COMPRESSING,
        (_S.STARTING, _E.SETTLED): _S.LIVE,
        (_S.STARTING, _E.WITHOUT_INPUTS): _S.COLLECTING,
        (_S.COLLECTING, _E.DONE): _S.COMPRESSING,
        (_S.COLLECTING, _E.SETTLED): _S.LIVE,
        (_S.COMPRESSING, _E.DONE): _S.TRYING,
        (_S.COMPRESSING, _E.SETTLED): _S.LIVE,
        (_S.TRYING, _E.DONE): _S.SWITCHING,
        (_S.TRYING, _E.AGAIN): _S.TRYING,
        (_S.TRYING, _E.SETTLED): _S.LIVE,
        (_S.SWITCHING, _E.DONE): _S.OBSERVING,
        (_S.SWITCHING, _E.SETTLED): _S.LIVE,
        (_S.OBSERVING, _E.DONE): _S.LIVE,
        (_S.RESTORING, _E.SETTLED): _S.LIVE,
        (_S.RESTORING, _E.REFUSED): _S.REFUSED,
        (_S.RESTORING, _E.FAILED): _S.FAILED,
        (_S.RESTORING, _E.CANCELLED): _S.RESTORING,  # already on its way to rest
    }
    | {
        (state, event): _S.RESTORING
        for state in WORKING
        if state is not _S.RESTORING
        for event in (_E.REFUSED, _E.FAILED, _E.CANCELLED)
    }
    | {(state, _E.BACK): _S.RESTORING for state in State}
    # What served is replaced by what served before it, and the work goes on. Where the work itself
    # loads something, it ends with a switch or a restore of its own.
    | {(state, _E.CRASHED): state for state in WORKING}
    | {(state, _E.CRASHED): _S.RESTORING for state in (*REST, _S.OBSERVING)}
)

LOADING = (_S.STARTING, _S.SWITCHING, _S.RESTORING)
"""While these are cut off, what the server runs may not be what the record says."""

DEADLINE_S: dict[State, float] = {
    _S.VERIFYING: 10 * 60,
    _S.FETCHING: 7 * 24 * 3600,
    # These three wait while another model is measured or compressed, which may take its day;
    # trials, jobs and loads have limits of their own, which end them long before.
    _S.STARTING: 7 * 24 * 3600,
    _S.COMPRESSING: 7 * 24 * 3600,
    _S.TRYING: 7 * 24 * 3600,
    _S.SWITCHING: 10 * 60,
    # These two end by the hours and minutes of their command, which are at most a week and a day.
    _S.COLLECTING: 8 * 24 * 3600,
    _S.OBSERVING: 2 * 24 * 3600,
    _S.RESTORING: 10 * 60,
}
"""Seconds of work before a state ends as failed, counted on across restarts. A link that is down
counts: a pull may wait a week for it, and the verdict on a command nobody can hear is not
urgent."""
