"""How events look on a terminal."""

from datetime import UTC, datetime

from agent.protocol.events import Event


def show(event: Event, *, as_json: bool) -> None:
    """Print one event as a line."""
    print(event.to_json().decode() if as_json else line(event), flush=True)


def line(event: Event) -> str:
    """One event in one line: when, who, what, why, and the figures."""
    when = datetime.fromtimestamp(event.at_s, tz=UTC).strftime("%H:%M:%S")
    model = "" if event.model is None else f" {event.model}@{event.version}"
    state = f" {event.state}" if event.state else ""
    figures = " ".join(f"{name}={_short(value)}" for name, value in event.figures.items())
    parts = [f"{when} {event.device} {event.kind}{model}{state}", event.message, figures]
    return "  ".join(part for part in parts if part)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
