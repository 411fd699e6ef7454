"""What one training is asked, once it is known what fits into memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compression.recovery.augmenting import Augmenter

Report = Callable[[str, float], None]
"""Hears in words how far it is, and which fraction of the time is over."""


@dataclass(frozen=True)
class Plan:
    """What a training is asked."""

    seconds: float
    steps: int | None
    """The most; None: as many as there is time for."""
    rate: float | None
    batch: int
    runs_of: int
    """How many samples one run holds."""
    seed: int
    stock_bytes: float
    augmenter: Augmenter
    checkpoint: Path | None
    key: str
    report: Report
