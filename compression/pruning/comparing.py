"""Which of several cuts loses least once it is repaired, where forecasts of that disagree.

How much of an early loss the layers behind undo is the model's own: where each is fitted to what
it reads from the one before, most of it; where a stream of residuals carries it past them, little.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import onnx

from compression import runtime
from compression.calibration import taps
from compression.calibration.evidence import Evidence
from compression.pruning.parts import Parts

MOST = 256
"""Samples by which cuts are compared."""
CLEARLY = 0.75
"""Of the error: models are compared on what they were fitted to, so a little less says nothing."""
T = TypeVar("T")


def fewer(parts: Parts) -> Parts:
    """At most `MOST` of the samples, evenly spread; the same parts where there are no more."""
    count = len(parts.judges)
    if count <= MOST:
        return parts
    chosen = np.zeros(count, bool)
    chosen[np.linspace(0, count - 1, MOST).round().astype(int)] = True
    given = parts.evidence
    few = Evidence(
        lambda: (sample for at, sample in parts.feeds() if chosen[at]),
        threads=given.threads, work_memory_mib=given.work_memory_mib, seed=given.seed,
    )  # fmt: skip
    return Parts(few, tuple(np.array(parts.judges)[chosen].tolist()))


def best(
    original: onnx.ModelProto,
    wishes: Sequence[T],
    make: Callable[[T], onnx.ModelProto],
    parts: Parts,
) -> tuple[T, onnx.ModelProto]:
    """Return the first wish, or a later one that clearly answers more like it, and its model."""
    found: tuple[float, T, onnx.ModelProto] | None = None
    for wish in wishes:
        made = make(wish)
        error = lost(original, made, parts)
        if found is None or error < CLEARLY * found[0]:
            found = error, wish, made
    assert found is not None
    return found[1:]


def lost(original: onnx.ModelProto, changed: onnx.ModelProto, parts: Parts) -> float:
    """The share of the outputs' energy that is lost, the mean over float outputs.

    Of shares (a Softmax) it is bounded: a few wild answers do not outweigh all others. Infinite
    where answers are not finite.

    Raises:
        BadModel: a model does not run.
    """
    sessions = [taps.session(one, threads=parts.evidence.threads) for one in (original, changed)]
    totals = np.zeros((len(original.graph.output), 2))
    for _, sample in parts.feeds():
        theirs, ours = (runtime.run(session, sample).values() for session in sessions)
        for at, (y, z) in enumerate(zip(theirs, ours, strict=True)):
            if np.issubdtype(y.dtype, np.floating) and y.shape == z.shape:
                wanted = y.astype(np.float64)
                totals[at] += (np.square(z - wanted).sum(), np.square(wanted).sum())
    judged = totals[totals[:, 1] != 0]
    found = float((judged[:, 0] / judged[:, 1]).mean()) if len(judged) else 0.0
    return found if np.isfinite(found) else float("inf")
