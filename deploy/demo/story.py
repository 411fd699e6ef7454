"""Each event of a deployment as one line for a person: a word, and what it is about (pure)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent.protocol.events import Event
from compression.findings import Measurement

MEBI = 2**20
_STATES = {
    "verifying": "the signed manifest is fetched and checked",
    "fetching": "chunks are pulled by subscribing to their hashes",
    "starting": "the original is judged, and serves where it fits",
    "compressing": "variants are made and measured",
    "trying": "the best variant is judged against the budget",
    "switching": "the server loads it beside what serves",
}


@dataclass(frozen=True)
class Line:
    """One line of the story. `tone` is good, bad or plain; `detail` goes below the text."""

    word: str
    text: str
    detail: str = ""
    tone: str = "plain"


@dataclass(frozen=True)
class Step:
    """How far a stage has come; `fraction` is in [0, 1]. `counts`: its text is a number that
    grows, worth a bar but not a line each time."""

    stage: str
    text: str
    fraction: float
    counts: bool = False


def tell(event: Event) -> Line | Step | None:
    """What to show of an event; None where there is nothing to say."""
    teller = _TELLERS.get(event.kind)
    return teller(event) if teller else Line(event.kind, event.message)


def _state(event: Event) -> Line:
    state = event.state or "?"
    tone = {"live": "good", "refused": "bad", "failed": "bad"}.get(state, "plain")
    return Line(state, _STATES.get(state) or event.message, tone=tone)


def _progress(event: Event) -> Step:
    figures = event.figures
    text = event.message
    done, whole = figures.get("done_bytes"), figures.get("bytes")
    counts = False
    if isinstance(done, int) and isinstance(whole, int):
        counts, text = True, f"{text} {megabytes(done)} of {megabytes(whole)}"
    fraction = figures.get("fraction")
    within = min(1.0, max(0.0, float(fraction))) if isinstance(fraction, int | float) else 0.0
    return Step(str(figures.get("stage", "work")), text, within, counts)


def _tried(event: Event) -> Line:
    if event.figures.get("tried") is False:  # those that others made needless, together
        return Line("left", event.message)
    accepted = bool(event.figures.get("accepted"))
    label = str(event.figures.get("label", "a variant"))
    measured = measurement(event.figures)
    # A rung that misses the budget is kept, as what comes nearest; its misses are the message.
    fits = accepted and not event.message
    word, tone = (
        ("fits", "good") if fits else ("kept", "plain") if accepted else ("rejected", "bad")
    )
    return Line(
        word,
        f"{label}: {event.message}" if event.message else label,
        summary(measured) if measured else "",
        tone=tone,
    )


def _swapped(event: Event) -> Line:
    label = str(event.figures.get("label", "?"))
    took = [
        f"{what} {event.figures[name]:.0f} ms"
        for what, name in (("load", "load_ms"), ("warm-up", "warm_ms"), ("drain", "drain_ms"))
        if isinstance(event.figures.get(name), int | float)
    ]
    probe = event.figures.get("probe_sqnr_db")
    if isinstance(probe, int | float):
        took.append(f"probe {probe:.0f} dB")
    sha256 = str(event.figures.get("sha256", ""))[:12]
    return Line("serving", f"{label} ({sha256})", ", ".join(took), tone="good")


_TELLERS: Mapping[str, Callable[[Event], Line | Step | None]] = {
    "state": _state,
    "progress": _progress,
    "tried": _tried,
    "swapped": _swapped,
}


def measurement(figures: Mapping[str, Any]) -> Measurement | None:
    """The measurement in an event's figures, where there is one that can be read."""
    try:
        return Measurement.model_validate(figures["measurement"])
    except (KeyError, ValidationError):
        return None


def summary(measured: Measurement) -> str:
    """The figures that decide, in one line, each against the original's."""
    agreement = measured.agreement
    return (
        f"{measured.size_mib * MEBI / 1e6:.2f} MB "
        f"({measured.size_mib / measured.original_size_mib:.2f}x), "
        f"latency {measured.latency_ratio:.2f}x by {measured.ratio_basis} time, "
        f"memory {measured.peak_memory_mib:.1f} MiB, "
        f"agreement {agreement.value:.3f} "
        f"[{agreement.low:.3f}, {agreement.high:.3f}] on {agreement.samples}"
    )


def megabytes(size_bytes: float) -> str:
    """Bytes as MB (10**6 bytes), two decimals."""
    return f"{size_bytes / 1e6:.2f} MB"
