"""Latency quantiles that merge across intervals and devices: DDSketch, and its form on the wire.

Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019. Every quantile is within 1 % of the true value.
"""

from collections.abc import Iterable
from typing import Annotated, Self

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import CollapsingLowestDenseStore
from pydantic import Field, model_validator

from compression.words import Words

RELATIVE_ACCURACY = 0.01
_BINS = 1024


class Quantiles(Words):
    """A sketch as sparse bins: `keys[i]` holds `counts[i]` values of any positive unit.

    Bin k holds values in (g^(k-1), g^k] with g = (1 + 0.01) / (1 - 0.01).
    """

    keys: Annotated[tuple[int, ...], Field(max_length=_BINS)] = ()
    counts: Annotated[tuple[int, ...], Field(max_length=_BINS)] = ()
    zeros: Annotated[int, Field(ge=0)] = 0
    sum: float = 0.0
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _a_count_for_each_key(self) -> Self:
        if len(self.keys) != len(self.counts):
            raise ValueError(f"{len(self.keys)} keys but {len(self.counts)} counts")
        return self

    @property
    def count(self) -> int:
        """How many values it holds."""
        return sum(self.counts) + self.zeros

    def quantile(self, q: float) -> float | None:
        """The value at quantile `q` in [0, 1], or None where it is empty."""
        value = Sketch.thaw(self).get_quantile_value(q)
        return None if value is None else float(value)


class Sketch(BaseDDSketch):
    """A DDSketch of non-negative values whose bins can be read and restored."""

    def __init__(self) -> None:
        super().__init__(
            mapping=LogarithmicMapping(RELATIVE_ACCURACY),
            store=CollapsingLowestDenseStore(_BINS),
            negative_store=CollapsingLowestDenseStore(_BINS),
            zero_count=0.0,
        )

    def freeze(self) -> Quantiles:
        """The form on the wire."""
        if not self._count:
            return Quantiles()
        store = self._store
        filled = [(i + store.offset, round(n)) for i, n in enumerate(store.bins) if n]
        return Quantiles(
            keys=tuple(key for key, _ in filled),
            counts=tuple(count for _, count in filled),
            zeros=round(self._zero_count),
            sum=self._sum,
            min=self._min,
            max=self._max,
        )

    @classmethod
    def thaw(cls, quantiles: Quantiles) -> "Sketch":
        """A sketch again, for merging and asking."""
        sketch = cls()
        for key, count in zip(quantiles.keys, quantiles.counts, strict=True):
            sketch._store.add(key, count)
        sketch._zero_count = quantiles.zeros
        sketch._count = quantiles.count
        sketch._sum = quantiles.sum
        if quantiles.min is not None and quantiles.max is not None:
            sketch._min, sketch._max = quantiles.min, quantiles.max
        return sketch


def merged(parts: Iterable[Quantiles]) -> Quantiles:
    """All the parts as one."""
    total = Sketch()
    for part in parts:
        total.merge(Sketch.thaw(part))
    return total.freeze()
