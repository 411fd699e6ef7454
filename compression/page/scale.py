"""Where a value lies along an axis, and which round values mark it (pure)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` drawn from `start` to `end`; what lies beyond is at the edge."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 5) -> list[float]:
        """Round values along the axis, at most about `most`."""
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= raw)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(first + at) * step for at in range(count)]


def around(
    values: list[float], *, margin: float = 0.08, least: float = 1e-3
) -> tuple[float, float]:
    """The smallest and the largest of values with some room at both ends."""
    low, high = min(values), max(values)
    room = margin * max(high - low, least)
    return low - room, high + room


def number(value: float) -> str:
    """A value as a tick shows it: no more digits than it has."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in {"", "-0"} else text
