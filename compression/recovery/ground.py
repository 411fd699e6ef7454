"""The inputs of a training in three parts: trained on, tuned by, and judged by at the end.

No source lies in two of them. What tunes (rates, when to stop) is seen often, so that its figures
flatter; what judges is looked at once.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.statistics import Arrays

Part = Literal["train", "tune", "judge"]
CYCLE: tuple[Part, ...] = (
    "train", "train", "judge", "train", "train", "tune", "train", "train", "judge", "train",
)  # fmt: skip
"""Of ten sources, in an order by chance: files may have a rhythm of their own."""
LEAST = 16
"""Samples: of fewer, no part could say anything."""
MOST_TUNING = 96
"""More would take longer to look at than they tell."""


@dataclass(frozen=True)
class Ground:
    """The samples of some evidence, each with its part and its source."""

    evidence: Evidence
    parts: tuple[Part, ...]
    sources: tuple[int, ...]

    def feeds(self, part: Part) -> Iterator[tuple[int, Arrays]]:
        """The samples of one part, each with its source."""
        told = 0
        for at, sample in enumerate(self.evidence.feeds()):
            if at >= len(self.parts):
                return
            if self.parts[at] != part or (part == "tune" and told >= MOST_TUNING):
                continue
            told += 1
            yield self.sources[at], sample

    def training(self) -> Iterator[Arrays]:
        """The samples that are trained on."""
        return (sample for _, sample in self.feeds("train"))

    def count(self, part: Part) -> int:
        """How many samples lie in a part."""
        return self.parts.count(part)


def divide(evidence: Evidence, *, most: int) -> Ground:
    """Divide at most `most` samples by their sources.

    Raises:
        BadModel: fewer than `LEAST` samples, or fewer sources than parts.
    """
    count = sum(1 for _, _ in zip(range(most), evidence.feeds(), strict=False))
    sources: Sequence[int] = range(count) if evidence.sources is None else evidence.sources()
    sources = tuple(sources[:count])
    distinct = sorted(set(sources))
    random.Random(0).shuffle(distinct)  # noqa: S311  # a division, not a secret
    kinds = {source: at for at, source in enumerate(distinct)}
    if count < LEAST or len(kinds) < len(CYCLE):
        raise BadModel(
            f"cannot recover by {count} calibration inputs of {len(kinds)} sources: at least "
            f"{LEAST} of {len(CYCLE)} are needed"
        )
    parts = tuple(CYCLE[kinds[source] % len(CYCLE)] for source in sources)
    return Ground(evidence, parts, sources)
