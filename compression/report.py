"""A ladder as text for people (pure)."""

from compression.job import Ladder, Rejected, Rung

_HEAD = ("", "variant", "size MiB", "memory MiB", "p50 ms", "p95 ms", "ratio", "agreement", "budget")


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
        lines.append("agreement is on random inputs: give real ones to know")
    if ladder.rejected:
        lines += ["", "rejected"]
        lines += [f"   {_why(one)}" for one in ladder.rejected]
    return "\n".join(lines) + "\n"


def _row(place: int, rung: Rung) -> tuple[str, ...]:
    found = rung.measurement
    agreement = found.agreement
    return (
        str(place),
        rung.recipe.label,
        f"{found.size_mib:.2f}",
        f"{found.peak_memory_mib:.1f}",
        f"{found.latency_p50_ms:.2f}",
        f"{found.latency_p95_ms:.2f}",
        f"{found.latency_ratio:.2f} {found.ratio_basis}",
        f"{agreement.value:.3f} [{agreement.low:.3f}, {agreement.high:.3f}] {agreement.kind}"
        + (" (guessed)" if agreement.guessed else ""),
        "meets" if rung.meets_budget else "misses",
    )


def _why(rejected: Rejected) -> str:
    return f"{rejected.recipe.label}: {rejected.reason}"
