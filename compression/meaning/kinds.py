"""Guesses what an output means from what is seen of it (pure); a person may know better."""

from collections.abc import Callable, Sequence
from typing import Any

from compression.job import OutputKind, OutputSpec
from compression.meaning import heads
from compression.meaning.seen import Seen

_LINEAR = {"Gemm", "MatMul", "Add"}

# The first that holds wins; the shape overrules the name: a class needs two columns.
RULES: tuple[tuple[Callable[[Seen], bool], OutputKind], ...] = (
    (lambda o: o.has_state and o.named != "embedding", "state"),
    (lambda o: "NonMaxSuppression" in o.tail, "detections"),
    (lambda o: len(o.shape) == 3 and 4 <= o.last <= 7 and "TopK" in o.tail, "detections"),
    (lambda o: o.named == "detections" or heads.raw_columns(o) != (), "detections"),
    (lambda o: o.named == "embedding", "embedding"),
    (lambda o: o.named == "state", "state"),
    (lambda o: o.named == "tensor", "tensor"),
    (lambda o: o.named == "mask" and len(o.shape) >= 3, "mask"),
    (lambda o: len(o.shape) == 4 and o.maker in {"Sigmoid", "HardSigmoid"}, "mask"),
    (lambda o: o.per_image_class, "mask"),
    (lambda o: len(o.shape) >= 3 and o.maker == "ArgMax" and o.image is not None, "mask"),
    (lambda o: len(o.shape) == 2 and o.last == 1 and _one_number(o), "score"),
    (lambda o: len(o.shape) == 1 and not o.integers and _one_number(o), "score"),
    (lambda o: len(o.shape) == 2 and o.last != 1 and o.normalised, "embedding"),
    (lambda o: len(o.shape) == 2 and o.last != 1 and _classes(o), "logits"),
    (lambda o: len(o.shape) == 1 and o.integers and _classes(o), "logits"),
    (lambda o: len(o.shape) == 2 and o.maker == "BatchNormalization", "embedding"),
    (lambda o: len(o.shape) == 2 and o.maker in _LINEAR and 2 <= o.last <= 4096, "logits"),
    (lambda o: len(o.shape) == 3 and _classes(o), "steps"),
    (lambda o: o.named == "score", "score"),
)


def guess(seen: Seen) -> OutputSpec:
    """Guess what an output means; the spec says that it is guessed."""
    kind = next((kind for holds, kind in RULES if holds(seen)), "tensor")
    spec = OutputSpec(name=seen.name, kind=kind, guessed=True)
    return spec.model_copy(update=FIELDS[kind](seen) if kind in FIELDS else {})


def guess_all(outputs: Sequence[Seen]) -> tuple[OutputSpec, ...]:
    """Guess all outputs of a model: what stands beside boxes and is named so is theirs."""
    specs = [guess(each) for each in outputs]
    if not any(spec.role == "boxes" for spec in specs):
        return tuple(specs)
    return tuple(
        OutputSpec(name=seen.name, kind="detections", guessed=True, **heads.fields(seen))
        if heads.beside(seen)
        else spec
        for seen, spec in zip(outputs, specs, strict=True)
    )


def _classes(seen: Seen) -> bool:
    return seen.named == "logits" or seen.softmax or seen.maker == "ArgMax"


def _one_number(seen: Seen) -> bool:
    return seen.named in {"score", "logits", "mask"} or seen.maker in {"Sigmoid", "HardSigmoid"}


def _class_axis(seen: Seen) -> dict[str, Any]:
    if seen.integers:
        return {}
    inner = seen.softmax and seen.axis is not None and 0 < seen.axis < len(seen.shape)
    return {"axis": seen.axis if inner else -1}


def _mask(seen: Seen) -> dict[str, Any]:
    per_class = len(seen.shape) == 4 and seen.shape[1] > 1 and not seen.integers
    return {"axis": 1} if per_class else {}


def _score(seen: Seen) -> dict[str, Any]:
    return {"threshold": 0.5} if seen.maker in {"Sigmoid", "HardSigmoid"} else {}


FIELDS: dict[OutputKind, Callable[[Seen], dict[str, Any]]] = {
    "logits": _class_axis,
    "steps": _class_axis,
    "mask": _mask,
    "score": _score,
    "detections": heads.fields,
}
"""What else is guessed, by kind."""
