"""What each node costs alone, in words: operator, weights, and who leaves it float (pure)."""

from collections.abc import Iterable, Mapping

import onnx
from onnx import numpy_helper

from compression.findings import Rung, Sensitivity
from compression.job import Recipe
from compression.passes import quantization, rescaling

TAKES: Mapping[str, tuple[str, ...]] = {
    "quantization": ("Conv", "Gemm", "MatMul"),
    "dynamic": ("MatMul", "Gemm"),
    "blocks": ("MatMul", "Gemm"),
    "recurrent": ("LSTM",),
}
"""Passes that make nodes compute in integers, and the operators that each takes by default."""


def of(model: onnx.ModelProto, alone: Mapping[str, float]) -> tuple[Sensitivity, ...]:
    """Describe nodes of a regular model, the worst first.

    `alone` is the SQNR in dB of the judged output when a node alone is quantized, by the name of
    its first output (or by that of what a pass has put in its place).
    """
    sizes = {
        tensor.name: numpy_helper.to_array(tensor).nbytes
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    whole = max(1, sum(sizes.values()))
    nodes = {name: node for node in model.graph.node for name in node.output[:1]}
    nodes |= {rescaling.inner(name): node for name, node in list(nodes.items())}
    ranked = sorted(alone.items(), key=lambda one: (one[1], one[0]))
    return tuple(
        Sensitivity(
            node=name,
            operator=nodes[name].op_type if name in nodes else "",
            sqnr_db=db,
            weight_share=min(1.0, sum(sizes.get(w, 0) for w in set(nodes[name].input)) / whole)
            if name in nodes
            else 0.0,
        )
        for name, db in ranked
    )


def with_rungs(found: Iterable[Sensitivity], rungs: Iterable[Rung]) -> tuple[Sensitivity, ...]:
    """Say of each node which rungs leave it float; the original, all of float, is not named."""
    recipes = [rung.recipe for rung in rungs if rung.recipe.passes]
    return tuple(
        one.model_copy(
            update={
                "left_float_in": tuple(
                    recipe.label
                    for recipe in recipes
                    if not computes_in_integers(recipe, one.node, one.operator)
                )
            }
        )
        for one in found
    )


def computes_in_integers(recipe: Recipe, node: str, operator: str) -> bool:
    """Whether some pass of a recipe takes this node; a pass may still find no kernel for it."""
    for spec in recipe.passes:
        taken = tuple(spec.parameters.get("operators", TAKES.get(spec.name, ())))
        if "*" in taken:
            taken = quantization.ALL
        only = spec.parameters.get("only")
        if (
            operator in taken
            and node not in spec.parameters.get("exclude", ())
            and (only is None or node in only)
        ):
            return True
    return False
