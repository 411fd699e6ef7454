"""The calibration inputs in two parts: weights are fitted to one, the other judges the fit.

A fit that is judged by the inputs that it was made from looks free, however strongly it bends.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.statistics import Arrays

ROWS = 24_576
"""Of each layer over all samples: more of fewer samples."""
POSITIONS = (32, 512)
"""The fewest and the most rows that one sample gives."""
LEAST = 8
"""Samples: of fewer no part could judge."""
_EVERY = 4
"""Of so many sources one judges."""


@dataclass(frozen=True)
class Parts:
    """The samples of some evidence. `judges` says of each whether it is one that judges."""

    evidence: Evidence
    judges: tuple[bool, ...]

    @property
    def positions(self) -> int:
        """How many rows are taken of one sample."""
        least, most = POSITIONS
        return min(most, max(least, -(-ROWS // len(self.judges))))

    def feeds(self, *, judging: bool | None = None) -> Iterator[tuple[int, Arrays]]:
        """The samples with their numbers: all, or those of one part."""
        for at, sample in enumerate(self.evidence.feeds()):
            if at >= len(self.judges):
                return
            if judging is None or self.judges[at] == judging:
                yield at, sample


def divide(evidence: Evidence, *, most: int) -> Parts:
    """Divide at most `most` samples; a source lies in one part as a whole.

    Raises:
        BadModel: fewer than `LEAST` samples, or all of one source.
    """
    count = sum(1 for _, _ in zip(range(most), evidence.feeds(), strict=False))
    sources = list(range(count)) if evidence.sources is None else list(evidence.sources())[:count]
    kinds = sorted(set(sources))
    if count < LEAST or len(kinds) < 2:
        raise BadModel(
            f"cannot choose channels by {count} calibration inputs of {len(kinds)} sources: "
            f"at least {LEAST} of 2 are needed"
        )
    # Drawn, since inputs may come in an order: every fourth of ten digits in turn is half of them.
    order = np.random.default_rng(evidence.seed).permutation(len(kinds))
    judging = {kinds[at] for at in order[: max(1, len(kinds) // _EVERY)]}
    return Parts(evidence, tuple(one in judging for one in sources))
