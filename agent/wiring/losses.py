"""Says what was dropped: a fleet that misses something shall know what, and of when."""

from datetime import UTC, datetime

from agent.control.announcer import Announcer
from agent.link.spool import Loss, Spool


def tell(spool: Spool, announcer: Announcer) -> None:
    """One event for each kind of message that the spool has dropped since the last time."""
    for loss in spool.losses():
        announcer.trouble(
            "dropped",
            describe(loss),
            what=loss.kind,
            messages=loss.messages,
            from_s=loss.from_s,
            to_s=loss.to_s,
        )


def describe(loss: Loss) -> str:
    """One loss as a sentence."""
    begun, ended = (
        datetime.fromtimestamp(at_s, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
        for at_s in (loss.from_s, loss.to_s)
    )
    return f"dropped {loss.messages} messages ({loss.kind}) of {begun} to {ended} UTC: no room"
