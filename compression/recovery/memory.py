"""Keeps a training within its work memory: how much of a graph, and how many samples, at once.

Peak memory is that of one backward pass. What torch keeps for it is reckoned from the largest
sample; where that is too much the graph is computed in parts (see interpreter.py).
"""

import contextlib
import ctypes
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch

from compression.recovery.student import Student
from compression.statistics import Arrays

STOCK = 0.25
"""The share of the work memory that samples take; the others are for activations."""
BACKWARD = 4
"""How many times what is kept the backward pass takes with its own gradients (measured)."""
MOST_PARTS = 32
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
_LEAST_MAPPED = 2**18


def _give_back_at_once() -> None:
    """Have freed memory given back to the system, in this process from now on.

    glibc learns from what is freed to keep blocks of up to 32 MiB, and activations of all sizes
    come and go: a training of the text recogniser held 180 MiB that nothing used. It takes a
    quarter more time on small models, which do without.
    """
    with contextlib.suppress(OSError, AttributeError):  # only glibc has it
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LEAST_MAPPED)
        library.mallopt(_M_TRIM_THRESHOLD, 4 * _LEAST_MAPPED)
        library.malloc_trim(0)


def largest(samples: Iterable[Arrays]) -> Arrays:
    """The sample with the most values: what it takes, no other one exceeds."""
    return max(samples, key=lambda one: sum(array.size for array in one.values()))


def fit(student: Student, sample: Arrays, *, most: int, bound: float) -> int:
    """Keep activations within `bound` bytes; return how many samples one run holds, up to `most`.

    Where those of one sample are too many, the graph is computed in parts, as few as will do.
    """
    kept, count = kept_bytes(student, sample), 1
    largest_part = sum(kept)
    while BACKWARD * largest_part > bound and count < MOST_PARTS:
        count += 1
        student.net.bounds = divided(kept, count)
        largest_part = max(sum(kept[a:b]) for a, b in pairwise(student.net.bounds))
    if count > 1:
        _give_back_at_once()
    return int(max(1, min(most, bound // max(1, BACKWARD * largest_part))))


def divided(kept: Sequence[int], count: int) -> tuple[int, ...]:
    """Where nodes are divided so that about as much is kept in each of at most `count` parts."""
    so_far, ends = 0, {0, len(kept)}
    for at, one in enumerate(kept):
        part = so_far * count // max(1, sum(kept))
        so_far += one
        if so_far * count // max(1, sum(kept)) > part:
            ends.add(at + 1)
    return tuple(sorted(ends))


def kept_bytes(student: Student, feeds: Arrays) -> list[int]:
    """What torch would keep of one run for its gradients, by node; nothing is kept here.

    What two operators read is counted twice: rather too much than too little.
    """
    kept = [0] * len(student.net.nodes)

    def count(tensor: Any) -> None:
        kept[student.net.at] += tensor.numel() * tensor.element_size()

    with torch.autograd.graph.saved_tensors_hooks(count, lambda nothing: nothing):
        student.run(feeds, features=True)
    return kept
