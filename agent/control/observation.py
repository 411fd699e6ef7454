"""Whether a variant that serves may stay, by what was seen of it live (pure)."""

from dataclasses import dataclass, field

from agent.protocol.capturing import Compared
from agent.protocol.sketch import Quantiles
from compression.job import Budget

LEAST_COMPARED = 20
_SURE = 1.68
"""Times the half of the 95 % interval: 99.9 %. There are many looks, and if each of them were wrong
one time in twenty, sooner or later what is good would be taken back."""
LEAST_TIMED = 50
"""Requests on either side before their latencies say anything."""
_SLOWER = 2.0
"""Times what the trial promised: live clients and neighbours are no trial."""
_OVER = 1.5
_LEAST_MS = 1.0
"""Less than this is the way through the server, not the model."""


@dataclass(frozen=True)
class Counters:
    """What one variant did while it served, as the server counts it."""

    requests: int = 0
    failures: int = 0
    latency_ms: Quantiles = field(default_factory=Quantiles)


@dataclass(frozen=True)
class Seen:
    """An observation so far. `before` is what its predecessor did while it served."""

    compared: Compared
    now: Counters
    before: Counters
    elapsed_s: float


@dataclass(frozen=True)
class Verdict:
    """`over` says that the window has ended; `reasons` is empty where it may stay."""

    over: bool
    reasons: tuple[str, ...] = ()


def judge(
    seen: Seen, budget: Budget, *, promised_ratio: float, wanted: int, window_s: float
) -> Verdict:
    """Judge by agreement and latency; `promised_ratio` is the trial's, against the predecessor.

    At the end what counts is the 95 % interval of the agreement; before it, 99.9 %.
    """
    over = seen.compared.compared >= wanted or seen.elapsed_s >= window_s
    width = 1.0 if over else _SURE
    reasons = (*_disagrees(seen.compared, budget, width), *_slow(seen, budget, promised_ratio))
    return Verdict(over or bool(reasons), reasons)


def _disagrees(compared: Compared, budget: Budget, width: float) -> tuple[str, ...]:
    agreement, least = compared.agreement, budget.min_agreement
    if agreement is None or least is None or compared.compared < LEAST_COMPARED:
        return ()
    if agreement.value + width * (agreement.high - agreement.value) >= least:
        return ()
    return (
        f"agreement {agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}] on "
        f"{compared.compared} live requests, at least {least:.3f} is wanted",
    )


def _slow(seen: Seen, budget: Budget, promised_ratio: float) -> tuple[str, ...]:
    if seen.now.latency_ms.count < LEAST_TIMED:
        return ()
    p50, p95 = (seen.now.latency_ms.quantile(q) or 0.0 for q in (0.5, 0.95))
    found = []
    bound = budget.latency_p95_ms
    if bound is not None and p95 > _OVER * bound:
        found.append(f"live p95 {p95:.1f} ms over {_OVER} x the budget's {bound:.1f} ms")
    before = seen.before.latency_ms.quantile(0.5)
    if before is not None and seen.before.latency_ms.count >= LEAST_TIMED:
        most = _SLOWER * max(promised_ratio, 1.0) * before
        if p50 > max(most, before + _LEAST_MS):
            found.append(
                f"live p50 {p50:.1f} ms, its predecessor's was {before:.1f} ms and the trial "
                f"promised {promised_ratio:.2f} of it"
            )
    return tuple(found)


def figures(seen: Seen, verdict: Verdict) -> dict[str, object]:
    """What the event says; only what is known."""
    agreement = seen.compared.agreement
    told: dict[str, object | None] = {
        "keep": not verdict.reasons,
        "compared": seen.compared.compared,
        "failed": seen.compared.failed,
        "skipped": seen.compared.skipped,
        "agreement": agreement.value if agreement else None,
        "low": agreement.low if agreement else None,
        "high": agreement.high if agreement else None,
        "requests": seen.now.requests,
        "latency_p50_ms": seen.now.latency_ms.quantile(0.5),
        "latency_p95_ms": seen.now.latency_ms.quantile(0.95),
        "before_latency_p50_ms": seen.before.latency_ms.quantile(0.5),
        "before_latency_p95_ms": seen.before.latency_ms.quantile(0.95),
        "elapsed_s": round(seen.elapsed_s, 3),
        "cannot": seen.compared.cannot or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def sentence(seen: Seen) -> str:
    """What was seen, in one line."""
    compared, agreement = seen.compared, seen.compared.agreement
    if agreement is None:
        why = f": {compared.cannot}" if compared.cannot else ""
        return f"nothing was compared in {seen.elapsed_s / 60:.1f} min{why}"
    return (
        f"{compared.compared} live answers agree at {agreement.value:.3f} "
        f"[{agreement.low:.3f}, {agreement.high:.3f}]"
    )
