"""Gives the commonest class of a cut model the share of the answers that the original gives it.

Least squares draws what it cannot explain to the mean, and among classes the mean is the commonest:
a text recogniser that was cut says "blank" at too many steps. One bias of the last layer is moved,
as for any change of the classes' shares (Saerens et al., "Adjusting the Outputs of a Classifier to
New a Priori Probabilities", Neural Computation, 2002), so far that the counts are equal.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compression import runtime
from compression.calibration import taps
from compression.pruning import layers
from compression.pruning.layers import Layer
from compression.pruning.parts import Parts
from compression.regular.wiring import attribute

MOST = 512
"""Samples that are asked: one number is found by them."""
SURE = 2.0
"""How many standard errors the shares have to differ by."""


@dataclass(frozen=True)
class Moved:
    """By how much the logit of class `kind` was lowered."""

    layer: str
    kind: int
    lowered: float


def restore(original: onnx.ModelProto, cut: onnx.ModelProto, parts: Parts) -> tuple[Moved, ...]:
    """Move a bias for each output of `cut` that is a Softmax of one layer, in place.

    Shares that differ by no more than chance stay, and so does a layer without a bias of its own.

    Raises:
        BadModel: a model does not run.
    """
    bench, found = layers.Bench(cut), []
    for softmax, layer in _classifiers(cut):
        theirs = [z.argmax(-1).ravel() for z in _logits(original, softmax, parts)]
        if not theirs:
            continue
        kinds = np.concatenate(theirs)
        kind = int(np.bincount(kinds).argmax())
        gaps = np.concatenate([_ahead(z, kind) for z in _logits(cut, softmax, parts)])
        moved = lowered(kinds == kind, gaps)
        if moved is not None:
            bias = bench.bias(layer)
            bias[kind] -= moved
            bench.write(layer, bench.rows(layer), bias)
            found.append(Moved(layer.name, kind, moved))
    return tuple(found)


def lowered(theirs: NDArray[np.bool_], gaps: NDArray[np.float32]) -> float | None:
    """By how much a class has to come down that is `gaps` ahead of all others; None: by nothing.

    `theirs` bool [rows] says where the original answers it, `gaps` float32 [rows] is above zero
    where the cut model does. Behind it both answer it equally often.
    """
    if theirs.shape != gaps.shape or not np.isfinite(gaps).all() or theirs.all():
        return None
    ours, wanted = gaps > 0, int(theirs.sum())
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if abs(gained - lost) <= SURE * np.sqrt(gained + lost):
        return None
    ranked = np.sort(gaps)[::-1]
    return float(ranked[wanted - 1 : wanted + 1].mean())


def _classifiers(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Layer]]:
    """Each Softmax that makes an output, and the layer of rows that it reads."""
    behind = {
        (one.added or one.node).output[0]: one
        for one in layers.find(model).values()
        if one.form.window is None and one.can_shift
    }
    leaving = {value.name for value in model.graph.output}
    for node in model.graph.node:
        layer = behind.get(node.input[0]) if node.op_type == "Softmax" else None
        if layer is not None and node.output[0] in leaving:
            yield node, layer


def _logits(
    model: onnx.ModelProto, softmax: onnx.NodeProto, parts: Parts
) -> Iterator[NDArray[np.float32]]:
    """What a Softmax reads, sample by sample, where it is over the last axis."""
    given, name = attribute(softmax, "axis"), str(softmax.input[0])
    opset = max(one.version for one in model.opset_import if one.domain in {"", "ai.onnx"})
    axis = (-1 if opset >= 13 else 1) if given is None else given
    session = taps.session(taps.outputs(model, [name]), threads=parts.evidence.threads)
    needed = {value.name for value in session.get_inputs()}
    for _, sample in itertools.islice(parts.feeds(), MOST):
        z = runtime.run(session, {key: sample[key] for key in needed})[name]
        if axis in {-1, z.ndim - 1} and z.shape[-1] > 1:
            yield z


def _ahead(z: NDArray[np.float32], kind: int) -> NDArray[np.float32]:
    """How far a class is ahead of the best of the others, [rows]."""
    rows = z.reshape(-1, z.shape[-1])
    others = np.delete(rows, kind, axis=1)
    found: NDArray[np.float32] = rows[:, kind] - others.max(1)
    return found
