"""Which recipes to try on a model, in which order, from its graph and the device (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compression.job import DeviceClass, PassSpec, Recipe
from compression.passes import rescaling

HALF_REACH = 0.5
SHORT_REACH = 0.35
"""Ranges cut to about a third of the way from typical to most extreme: outliers saturate."""
MOST_FLOAT = 12
"""The most nodes that a mixed recipe leaves float."""


@dataclass(frozen=True)
class Facts:
    """What decides the recipes: how many nodes of each operator can be quantized."""

    weighted: Mapping[str, int]
    """Conv, Gemm, MatMul with constant weights -> how many."""
    elementwise: int
    looked_up: int
    """Gather nodes over constant float tables."""
    outlying: tuple[str, ...] = ()
    """Conv nodes whose inputs have outlying samples."""
    unrollable: tuple[str, ...] = ()
    """Those of them that can be written as a MatMul, whose output stays float."""


def candidates(facts: Facts, device: DeviceClass) -> tuple[Recipe, ...]:
    """Return the recipes that need no measurement, the most promising first.

    Empty where the model has nothing to quantize.
    """
    if not sum(facts.weighted.values()):
        return ()
    base: dict[str, Any] = {"weights": weight_format(device), "activations": activations(device)}
    if facts.looked_up:
        base["operators"] = ["Conv", "Gemm", "MatMul", "Gather"]
    plain = [
        _static("int8 per-channel", base),
        _static("int8 per-tensor", {**base, "per_channel": False}),
    ]
    half = {**base, "reach": HALF_REACH}
    if facts.outlying:
        plain += [
            _rescaled(_static("int8 per-channel", base), facts),
            _rescaled(_static("int8 per-channel, half ranges", half), facts),
        ]
    else:
        plain.append(_static("int8 per-channel, short ranges", {**base, "reach": SHORT_REACH}))
    if facts.elementwise:
        plain.insert(0, _static("int8 all operators", {**base, "operators": ["*"]}))
    if device.int8_saturates:
        # Weights of full range without saturation, at the cost of a slower kernel.
        full = _static("int8 u8 weights", {**half, "weights": "u8"})
        plain.append(_rescaled(full, facts) if facts.outlying else full)
    dynamic = Recipe(
        label="int8 dynamic MatMul",
        passes=(PassSpec(name="dynamic", parameters={"weights": base["weights"]}),),
    )
    if facts.weighted.get("MatMul", 0) > facts.weighted.get("Conv", 0):
        return (dynamic, *plain)
    return tuple(plain)


def weight_format(device: DeviceClass) -> str:
    """Full range where int8 products are summed in 32 bits; else seven bits."""
    return "s8-7bit" if device.int8_saturates else "s8"


def activations(device: DeviceClass) -> str:
    """u8 x s8 is what x86 has instructions for, s8 x s8 what ARM has."""
    return "u8" if device.machine in {"x86_64", "AMD64"} else "s8"


def mixed(best: Recipe, sqnr_db: Mapping[str, float], *, floor_db: float) -> tuple[Recipe, ...]:
    """Return `best` with its worst nodes left float: one more recipe for each step down.

    `sqnr_db` is of the outputs when that node alone is quantized. Nodes below `floor_db` are
    culprits; the steps leave out 1, 2, 4, ... of the worst.
    """
    culprits = sorted((db, name) for name, db in sqnr_db.items() if db < floor_db)
    names = [name for _, name in culprits[:MOST_FLOAT]]
    counts = [count for count in (1, 2, 4, 8, MOST_FLOAT) if count <= len(names)]
    return tuple(_excluding(best, names[:count]) for count in counts if count < len(sqnr_db))


def _excluding(recipe: Recipe, names: Sequence[str]) -> Recipe:
    *before, last = recipe.passes
    spec = PassSpec(name=last.name, parameters={**last.parameters, "exclude": list(names)})
    plural = "node" if len(names) == 1 else "nodes"
    return Recipe(label=f"{recipe.label}, {len(names)} {plural} float", passes=(*before, spec))


def _rescaled(recipe: Recipe, facts: Facts) -> Recipe:
    """The recipe behind a rewriting, exact in float, of the nodes that have outlying samples."""
    before = [PassSpec(name="rescaling", parameters={"nodes": list(facts.outlying)})]
    label = f"{recipe.label}, rescaled"
    if facts.unrollable:
        inner = [rescaling.inner(name) for name in facts.unrollable]
        before.append(PassSpec(name="unrolling", parameters={"nodes": inner}))
        label += " and unrolled"
    return Recipe(label=label, passes=(*before, *recipe.passes))


def _static(label: str, parameters: Mapping[str, Any]) -> Recipe:
    return Recipe(label=label, passes=(PassSpec(name="quantization", parameters=dict(parameters)),))
