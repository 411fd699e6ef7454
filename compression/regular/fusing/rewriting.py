"""Makes a regular graph cheaper, exactly in float: the rules in order."""

from collections.abc import Callable

import onnx
from onnx import helper

from compression.regular import folding
from compression.regular.fusing import (
    activations,
    lookups,
    moving,
    normalizing,
    regions,
    reshaping,
    scaling,
)

Rule = Callable[[onnx.ModelProto], int]
"""Changes a model in place and says how many places it has changed."""
ALL: tuple[Rule, ...] = (
    reshaping.settle,
    moving.straighten,
    lookups.fuse,
    normalizing.fuse,
    moving.straighten,
    activations.curves,
    activations.lines,
    scaling.fold,
    lookups.absorb,
)
LEVELS = (ALL, tuple(rule for rule in ALL if rule is not normalizing.fuse))
"""Variances spelled E[x^2] - E[x]^2 cancel where the mean is large: the operator is then the more
exact one, and not equal. So there is a second try without it."""


def fuse(model: onnx.ModelProto, rules: tuple[Rule, ...] = ALL) -> int:
    """Apply rules in place; returns how many places have changed.

    What comes out has to be run beside the original: rules look at parts.
    """
    changed = sum(rule(model) for rule in rules)
    if changed:
        folding.by_rules(model)
        _declare(model)
    return changed


def _declare(model: onnx.ModelProto) -> None:
    """Say what rank onnxruntime's own operators answer in: onnx does not know them and stops."""
    own = [node.output[0] for node in model.graph.node if node.op_type in regions.ALIKE]
    if not own:
        return
    dims = regions.Map.of(model).dims
    declared = {value.name for value in [*model.graph.value_info, *model.graph.output]}
    model.graph.value_info.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * len(dims[name]))
        for name in own
        if name in dims and name not in declared
    )
