"""What the table of kernels forecast of variants, beside what was measured of them, as text."""

from dataclasses import dataclass

from compression.findings import Ladder, Rejected, Rung


@dataclass(frozen=True)
class Forecast:
    """One variant's CPU time over the original's: as forecast before it was made, and measured."""

    label: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far the forecast is off, as a fraction."""
        return self.predicted / self.measured - 1


def of(ladder: Ladder) -> list[Forecast]:
    """The variants that were forecast and measured, rungs first."""
    every: list[Rung | Rejected] = [*ladder.rungs, *ladder.rejected]
    return [
        Forecast(one.recipe.label, one.predicted_ratio, one.measurement.cpu_ratio)
        for one in every
        if one.predicted_ratio is not None and one.measurement and one.measurement.cpu_ratio > 0
    ]


def lines(ladder: Ladder) -> list[str]:
    """A line for each forecast, below a heading; none where nothing was forecast."""
    found = [
        f"   {one.label}: {one.predicted:.2f} of the original's CPU time, measured "
        f"{one.measured:.2f} ({one.error:+.0%})"
        for one in of(ladder)
    ]
    return ["", "forecast by what kernels cost here", *found] if found else []
