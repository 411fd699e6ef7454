"""What to try next, from what a first look at the candidates showed (pure)."""

from collections.abc import Iterable, Mapping, Sequence

import onnx

from compression.job import PassSpec, Recipe

MOST_FLOAT = 12
"""The most nodes that a mixed recipe leaves float for the sake of accuracy."""
STATIC = "quantization"
ROUNDING = (STATIC, "reconstruction")
REACHES = (0.35, 0.1, 0.0)
"""How far ranges go from typical extremes to the most extreme one, step by step."""
BEFORE_ALL = ("equalization",)
"""Passes that change the float model, so that those that round find it so."""


def static(recipe: Recipe) -> PassSpec | None:
    """Return the recipe's pass that quantizes ahead of time, if it has one."""
    return next((spec for spec in recipe.passes if spec.name == STATIC), None)


def mixed(best: Recipe, sqnr_db: Mapping[str, float], *, floor_db: float) -> tuple[Recipe, ...]:
    """Return `best` with its worst nodes left float: one more recipe for each step down.

    `sqnr_db` is of the outputs when that node alone is quantized. Nodes below `floor_db` are
    culprits; the steps leave out 1, 2, 4, ... of the worst.
    """
    culprits = sorted((db, name) for name, db in sqnr_db.items() if db < floor_db)
    names = [name for _, name in culprits[:MOST_FLOAT]]
    counts = [count for count in (1, 2, 4, 8, MOST_FLOAT) if count <= len(names)]
    return tuple(
        without(best, names[:count], f"{count} {'node' if count == 1 else 'nodes'} float")
        for count in counts
        if count < len(sqnr_db)
    )


def tightened(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipe with shorter ranges: what is more extreme saturates, the rest is finer."""
    spec = static(recipe)
    if spec is None:
        return ()
    found = []
    for reach in REACHES:
        if reach < spec.parameters.get("reach", 1.0):
            shorter = PassSpec(name=STATIC, parameters={**spec.parameters, "reach": reach})
            passes = tuple(shorter if one is spec else one for one in recipe.passes)
            found.append(Recipe(label=f"{recipe.label}, reach {reach:g}", passes=passes))
    return tuple(found)


def without(recipe: Recipe, names: Iterable[str], why: str) -> Recipe:
    """Return the recipe with these nodes left float, beside those that it leaves float already."""
    passes = []
    for spec in recipe.passes:
        if spec.name == STATIC:
            left = [*spec.parameters.get("exclude", ()), *names]
            parameters = {**spec.parameters, "exclude": list(dict.fromkeys(left))}
            passes.append(PassSpec(name=spec.name, parameters=parameters))
        else:
            passes.append(spec)
    return Recipe(label=f"{recipe.label}, {why}", passes=tuple(passes))


def then(recipe: Recipe, spec: PassSpec, label: str) -> Recipe:
    """Return the recipe with one more pass: first of all, or behind those that round weights."""
    at = 0
    if spec.name not in BEFORE_ALL:
        at = 1 + max(n for n, one in enumerate(recipe.passes) if one.name in ROUNDING)
    passes = (*recipe.passes[:at], spec, *recipe.passes[at:])
    return Recipe(label=f"{recipe.label}, {label}", passes=passes)


def finishers(*, saturates: bool) -> tuple[tuple[str, PassSpec], ...]:
    """Passes that may bring a static recipe closer at no cost in time or size, in order.

    Where weights have 7 bits, pairs of them are rounded together: with coarse steps it pays.
    """
    pairs = {"pairs": True} if saturates else {}
    return (
        ("equalized", PassSpec(name="equalization")),
        ("reconstructed", PassSpec(name="reconstruction", parameters=pairs)),
        ("corrected", PassSpec(name="correction", parameters={"samples": 16})),
    )


def runs(spec: PassSpec, *, layers: int) -> float:
    """About how many runs of the model a finisher takes, of a model with so many `layers`.

    The correction runs all before a layer for each step, which is half of the model on average.
    """
    samples = {"equalization": 48.0, "reconstruction": 2 * 48.0, "correction": 8.0 * layers}
    return samples.get(spec.name, 0.0)


def widened(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe with these constants stored in 16 bits instead of 8."""
    *before, last = recipe.passes
    spec = PassSpec(
        name=last.name, parameters={**last.parameters, "wide": list(names), "wide_share": 0.0}
    )
    plural = "constant" if len(names) == 1 else "constants"
    return Recipe(label=f"{recipe.label}, {len(names)} {plural} in 16 bits", passes=(*before, spec))


def islands(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Sort nodes by what decides whether an int8 kernel pays: {what they are: their names}.

    Nodes are named by their first output. The most nodes first, since they may cost the most.
    """
    shapes = {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    makers = {name: node for node in model.graph.node for name in node.output[:1]}
    found: dict[str, list[str]] = {}
    for name in names:
        if name in makers:
            found.setdefault(_island(makers[name], shapes), []).append(name)
    ranked = sorted(found.items(), key=lambda one: -len(one[1]))
    return {kind: tuple(members) for kind, members in ranked}


def _island(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> str:
    weight = shapes.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type != "Conv" or weight is None:
        return node.op_type
    if weight[1] == 1 and weight[0] > 1 and _groups(node) > 1:
        return "depthwise Conv"
    kernel = "1x1" if all(size == 1 for size in weight[2:]) else "wide"
    narrow = min(weight[0], weight[1]) < 32
    return f"{'narrow ' if narrow else ''}{kernel} Conv"


def _groups(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "group"), 1)
