"""Makes a regular graph cheaper, exactly in float: the rules in order."""

from collections.abc import Callable

import onnx

from compression.regular import folding
from compression.regular.fusing import activations, scaling

RULES: tuple[Callable[[onnx.ModelProto], int], ...] = (
    activations.curves,
    activations.lines,
    scaling.fold,
)
"""Each changes a model in place and says how many places it has changed."""


def fuse(model: onnx.ModelProto) -> int:
    """Apply all rules in place; returns how many places have changed.

    What comes out has to be run beside the original: rules look at parts.
    """
    changed = sum(rule(model) for rule in RULES)
    if changed:
        folding.by_rules(model)
    return changed
