"""Samples in random order, batch by batch, from a bounded stock that is filled up as it is used.

What is trained on may be far more than memory holds: it is read again and again, in the order of
the file, and shuffled within the stock.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Key = tuple[tuple[str, tuple[int, ...]], ...]


class Stream:
    """Endless groups of samples of equal shapes, each sample once before any comes again."""

    def __init__(
        self, feeds: Callable[[], Iterable[Arrays]], *, bound_bytes: float, seed: int
    ) -> None:
        """`feeds` gives the same samples each time; the stock holds `bound_bytes` of them."""
        self._feeds = feeds
        self._bound = bound_bytes
        self._rng = np.random.default_rng(seed)
        self._source: Iterator[Arrays] = iter(())
        self._stock: list[Arrays] = []
        self._bytes = 0
        self._ended = True

    def step(self, samples: int, *, runs_of: int) -> Iterator[list[Arrays]]:
        """Give the samples of one step in groups of at most `runs_of`."""
        left = samples
        while left > 0:
            taken = self.take(min(left, runs_of))
            left -= len(taken)
            yield taken

    def take(self, most: int) -> list[Arrays]:
        """Return one sample at random, and others of its shapes from the stock up to `most`."""
        self._fill()
        order = self._rng.permutation(len(self._stock))
        wanted = _key(self._stock[order[0]])
        chosen = [at for at in order if _key(self._stock[at]) == wanted][:most]
        taken = [self._stock[at] for at in chosen]
        for at in sorted(chosen, reverse=True):
            self._bytes -= _size(self._stock.pop(at))
        return taken

    def _fill(self) -> None:
        """Read on until the stock is full or the samples end; begin anew once all are used."""
        while not self._stock or (not self._ended and self._bytes < self._bound):
            if self._ended:
                self._source, self._ended = iter(self._feeds()), False
            sample = next(self._source, None)
            if sample is None:
                self._ended = True
                continue
            self._stock.append(sample)
            self._bytes += _size(sample)


def joined(samples: list[Arrays]) -> Arrays:
    """Several samples as one batch, along the leading axis."""
    return {name: np.concatenate([one[name] for one in samples]) for name in samples[0]}


def _key(sample: Arrays) -> Key:
    return tuple((name, array.shape) for name, array in sample.items())


def _size(sample: Arrays) -> int:
    return sum(array.nbytes for array in sample.values())
