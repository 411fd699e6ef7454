"""How large each input of a layer is on the samples: its mean square, streamed sample by sample."""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import moments, taps
from compression.calibration.moments import Input
from compression.pruning.parts import Parts

Floats = NDArray[np.float64]


def measure(model: onnx.ModelProto, wanted: Mapping[str, Input], parts: Parts) -> dict[str, Floats]:
    """Return the mean square of each input, float64 [groups, inputs of one], by the keys given.

    What is not finite is left out.

    Raises:
        BadModel: the model does not run, or lacks a tensor.
    """
    given = {value.name for value in model.graph.input}
    made = [name for name in dict.fromkeys(one.tensor for one in wanted.values())
            if name not in given]  # fmt: skip
    readers: dict[str, list[str]] = {}
    for key, read in wanted.items():
        readers.setdefault(read.tensor, []).append(key)
    found: dict[str, Floats] = {}
    threads = parts.evidence.threads
    session = taps.session(taps.outputs(model, made), threads=threads) if made else None
    seed, count = parts.evidence.seed, 0
    for number, sample in parts.feeds():
        count += 1
        brought = iter(()) if session is None else runtime.each(session, sample)
        for name, values in (*((one, sample[one]) for one in readers.keys() & given), *brought):
            for key in readers[name]:
                rng = np.random.default_rng((seed, number))
                rows = moments.unfold(wanted[key], values, rng)
                square = np.square(rows, dtype=np.float64).mean(axis=1)
                found[key] = found[key] + square if key in found else square
    return {key: total / count for key, total in found.items() if np.isfinite(total).all()}
