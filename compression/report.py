"""A ladder as text for people (pure)."""

from collections.abc import Sequence

from compression import bought, forecasts
from compression.findings import (
    Agreement,
    Division,
    Labelled,
    Ladder,
    Measurement,
    Recovered,
    Rejected,
    Rung,
)
from compression.stream import Tried

_HEAD = (
    "",
    "variant",
    "size MiB",
    "memory MiB",
    "p50 ms",
    "p95 ms",
    "ratio",
    "agreement",
    "budget",
)


UNVERIFIED = (
    "unverified: no inputs came with the model, so made-up ones stand in; give real ones to know"
)
UNSTRUCTURED = (
    "unstructured pruning makes the file smaller, not the model faster: this runtime multiplies "
    "zeros as it does any other number, and memory holds them too"
)
SLOWER = 1.05
"""A ratio above this is slower, whatever the noise; the ruler calls a device quiet up to 5 %."""


def slower(found: Measurement) -> bool:
    """Whether a variant takes longer than its original, by more than chance explains."""
    surely = found.ratio_low is not None and found.ratio_low > 1.0
    return surely or found.latency_ratio > max(SLOWER, 1.0 + _wall_noise(found))


def _wall_noise(found: Measurement) -> float:
    return found.noise if found.ratio_basis == "wall" else 0.0


def is_sparse(rung: Rung) -> bool:
    """Whether single weights were set to zero in it."""
    return any(spec.name == "unstructured_pruning" for spec in rung.recipe.passes)


def size(found: Measurement) -> str:
    """The file in MiB, and where it is packed what it expands to."""
    packed = "" if found.expanded_mib is None else f", {found.expanded_mib:.2f} expanded"
    return f"{found.size_mib:.2f}{packed}"


def table(ladder: Ladder) -> str:
    """Write the ladder as a table, best first, then what was rejected and why."""
    rows = [_HEAD, *(_row(place, rung) for place, rung in enumerate(ladder.rungs, start=1))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"   {miss}" for rung in ladder.rungs[:1] for miss in rung.misses]
    if any(not rung.verified for rung in ladder.rungs):
        lines.append(UNVERIFIED)
    if any(is_sparse(rung) for rung in ladder.rungs):
        lines.append(UNSTRUCTURED)
    if ladder.division is not None:
        lines.append(division(ladder.division))
    lines += [text for text in (bought.text(ladder),) if text]
    if ladder.rejected:
        lines += ["", "rejected"]
        lines += [f"   {_why(one)}" for one in ladder.rejected if one.tried]
        lines += [f"   {text}" for text in (untried(ladder.rejected),) if text]
    lines += _trained(ladder)
    lines += forecasts.lines(ladder)
    return "\n".join(lines) + "\n"


def division(found: Division) -> str:
    """Say in one line which inputs calibrated, chose and reported."""
    text = (
        f"inputs: {found.calibrating} calibrate, {found.choosing} choose, "
        f"{found.reporting} report ({found.split})"
    )
    if found.fitting > found.calibrating:
        text += f"; weights may be fitted to {found.fitting}"
    total = max(found.calibrating, found.fitting) + found.choosing
    total += found.reporting if found.split in {"held-out", "synthetic"} else 0
    if found.apart and found.sources < total:
        text += f"; of {found.sources} sources, none in two parts"
    if found.copies:
        text += f"; {found.copies} equal to another left out"
    if not found.apart:
        same = "do all" if found.split == "calibration" else "calibrate and choose"
        text += f"; too few to keep apart, so the same ones {same}: give more to know more"
    return text


def untried(rejected: Sequence[Rejected]) -> str:
    """Name in one line the candidates that were left, with the reason of the first; or nothing."""
    left = [one for one in rejected if not one.tried]
    if not left:
        return ""
    if len(left) == 1:
        return f"{left[0].recipe.label}: {left[0].reason}"
    late = [one.recipe.label for one in left if "minutes" in one.reason]
    needless = [one.recipe.label for one in left if "minutes" not in one.reason]
    told = [
        f"{len(names)} not tried, as {why}: {', '.join(names)}"
        for why, names in (
            ("the minutes of the job are over", late),
            ("they looked no better than what is kept", needless),
        )
        if names
    ]
    return "; ".join(told)


def _row(place: int, rung: Rung) -> tuple[str, ...]:
    found = rung.measurement
    agreement = found.agreement
    return (
        str(place),
        rung.recipe.label,
        size(found),
        f"{found.peak_memory_mib:.1f}",
        f"{found.latency_p50_ms:.2f}",
        f"{found.latency_p95_ms:.2f}",
        f"{found.latency_ratio:.2f} {found.ratio_basis}" + (", slower" if slower(found) else ""),
        f"{agreed(agreement)} {agreement.kind}" + (" (guessed)" if agreement.guessed else ""),
        ("meets" if rung.meets_budget else "misses") + ("" if rung.verified else ", unverified"),
    )


def agreed(agreement: Agreement) -> str:
    """An agreement with its interval, and on what."""
    return (
        f"{agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}] "
        f"on {agreement.samples} {agreement.split}"
    )


def _why(rejected: Rejected) -> str:
    return f"{rejected.recipe.label}: {rejected.reason}"


def _trained(ladder: Ladder) -> list[str]:
    """A line for each training, below a heading; none where nothing was trained."""
    found = [f"   {one.recipe.label}: {training(one)}" for one in ladder.recovered]
    return ["", "recovered by training without labels", *found] if found else []


def training(found: Recovered) -> str:
    """What a training did, in one line."""
    verdict = "let in" if found.accepted else "not let in"
    took = f", {found.minutes:.1f} min" if found.minutes else ""
    return f"{verdict}, {found.reason}{took}"


def line(tried: Tried) -> str:
    """One candidate that was judged, as one line while the work goes on."""
    if tried.rejected is not None:
        return f"rejected {_why(tried.rejected)}"
    if tried.untried:
        return untried(tried.untried)
    rung = tried.rung
    if rung is None:
        return ""
    found = rung.measurement
    figures = (
        f"{size(found)} MiB, ratio {found.latency_ratio:.2f} ({found.ratio_basis}), "
        f"agreement {agreed(found.agreement)}"
    )
    doubts = ["slower than the original"] if slower(found) else []
    doubts += [] if rung.verified else ["unverified"]
    return f"measured {rung.recipe.label}: {'; '.join([figures, *doubts, *rung.misses])}"


def measurement(found: Measurement) -> str:
    """One measurement as lines of name, value beside the original's, and how it was taken."""
    agreement = found.agreement
    rows = [
        ("latency p50 ms", f"{found.latency_p50_ms:.3f}", f"{found.original_latency_p50_ms:.3f}"),
        ("latency p95 ms", f"{found.latency_p95_ms:.3f}", f"{found.original_latency_p95_ms:.3f}"),
        (
            "CPU ms per inference",
            f"{found.cpu_ms_per_inference:.3f}",
            f"{found.original_cpu_ms_per_inference:.3f}",
        ),
        (
            "peak memory MiB",
            f"{found.peak_memory_mib:.1f}",
            f"{found.original_peak_memory_mib:.1f}",
        ),
        ("size MiB", f"{found.size_mib:.2f}", f"{found.original_size_mib:.2f}"),
    ]
    if found.expanded_mib is not None:
        rows.append(("expanded MiB", f"{found.expanded_mib:.2f}", ""))
    lines = [f"{'':22}{'model':>12}{'original':>12}"]
    lines += [f"{name:22}{value:>12}{original:>12}" for name, value, original in rows]
    lines += [
        f"ratio {found.latency_ratio:.3f} by {found.ratio_basis} time "
        f"(wall {found.wall_ratio:.3f}, CPU {found.cpu_ratio:.3f}, noise {found.noise:.1%}), "
        f"{found.rounds} rounds, {found.threads} threads",
        f"agreement {agreement.value:.4f} [{agreement.low:.4f}, {agreement.high:.4f}] by "
        f"{agreement.kind}{' (guessed)' if agreement.guessed else ''} of {agreement.output!r}, "
        f"{agreement.samples} {agreement.split} samples",
        *(f"{name} {value:.4f}" for name, value in agreement.also.items()),
        *(labelled(one) for one in found.labelled),
        *(f"{name}: SQNR {value:.1f} dB" for name, value in found.sqnr_db.items()),
        *(f"{name}: {how}" for name, how in found.method.items()),
    ]
    return "\n".join(lines)


def labelled(found: Labelled) -> str:
    """The user's own metric of both models, and their difference, in one line."""
    return (
        f"{found.metric} by labels {found.candidate:.4f}, original {found.original:.4f} "
        f"(difference {found.candidate - found.original:+.4f} [{found.low:+.4f}, "
        f"{found.high:+.4f}]) on {found.samples} samples"
    )
