"""Guesses what an output means from its name, shape and maker (pure); a person may know better."""

import re

from compression.job import OutputKind, OutputSpec

# The first pattern that is found in the lower-case name wins.
NAMES: tuple[tuple[str, OutputKind], ...] = (
    (r"box|detect|bbox|num_det", "detections"),
    (r"mask|segment", "mask"),
    (r"embed|feature|pooler|hidden_state", "embedding"),
    (r"(^|_)(h|c|hn|cn|state)(n|_?out)?$|state", "state"),
    (r"logit|prob|label|class|softmax", "logits"),
    (r"score|confidence", "score"),
)


def guess(
    name: str, *, shape: tuple[int, ...], maker: str, like_an_input: bool = False
) -> OutputSpec:
    """Guess the kind of an output. `maker` is the operator type that writes it.

    `like_an_input` says that some input has the same shape and dtype, as states have.
    """
    kind = _by_name(name)
    if kind is None and like_an_input:
        kind = "state"
    kind = _corrected(kind, shape, maker)
    axis = {"logits": -1, "steps": -1}.get(kind)
    if kind == "mask" and len(shape) == 4 and shape[1] > 1:
        axis = 1
    return OutputSpec(name=name, kind=kind, axis=axis)


def _by_name(name: str) -> OutputKind | None:
    lowered = name.lower()
    return next((kind for pattern, kind in NAMES if re.search(pattern, lowered)), None)


def _corrected(kind: OutputKind | None, shape: tuple[int, ...], maker: str) -> OutputKind:
    """The shape overrules the name: a class needs two columns, steps a time axis."""
    rank, last = len(shape), shape[-1] if shape else 1
    classes = kind == "logits" or maker in {"Softmax", "LogSoftmax"}
    linear = maker in {"Gemm", "MatMul", "Add"} and 2 <= last <= 4096
    rules: tuple[tuple[bool, OutputKind], ...] = (
        (kind == "detections", "detections"),
        (kind == "embedding", "embedding"),
        (kind == "state", "state"),
        (kind == "mask" or (rank == 4 and maker == "Sigmoid"), "mask"),
        (rank == 2 and last == 1 and (kind is not None or maker == "Sigmoid"), "score"),
        (rank == 2 and last != 1 and (classes or linear), "logits"),
        (rank == 3 and classes, "steps"),
        (kind == "score", "score"),
    )
    return next((meaning for holds, meaning in rules if holds), "tensor")
