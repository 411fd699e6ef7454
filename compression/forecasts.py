"""What the table of kernels forecast of variants, beside what was measured of them, as text."""

from collections.abc import Iterator

from compression.job import Ladder, Measurement, Rejected, Rung


def lines(ladder: Ladder) -> list[str]:
    """One line for each variant that was forecast and measured; none where nothing was forecast."""
    found = [
        f"   {label}: forecast {predicted:.2f} of the original's CPU time, "
        f"measured {seen.cpu_ratio:.2f} ({predicted / seen.cpu_ratio - 1:+.0%})"
        for label, predicted, seen in _forecast(ladder)
    ]
    return ["", "forecast by what its kernels cost here", *found] if found else []


def _forecast(ladder: Ladder) -> Iterator[tuple[str, float, Measurement]]:
    every: list[Rung | Rejected] = [*ladder.rungs, *ladder.rejected]
    for one in every:
        seen, predicted = one.measurement, one.predicted_ratio
        if seen is not None and predicted is not None and seen.cpu_ratio > 0:
            yield one.recipe.label, predicted, seen
