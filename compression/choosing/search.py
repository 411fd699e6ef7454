"""Which recipes to try on a model, in which order, from its graph and the device (pure).

Each ends with the pass that stores what is still float in 8 bits: it costs no time and hardly any
accuracy, so that a recipe need not choose between a node's speed and its size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compression.job import DeviceClass, PassSpec, Recipe
from compression.passes import rescaling

HALF_REACH = 0.5
SHORT_REACH = 0.35
"""Ranges cut to about a third of the way from typical to most extreme: outliers saturate."""
BLOCKS = (32, 128)
"""Weights that share a scale: the small block is closer, the large one smaller and faster."""
X86 = frozenset({"x86_64", "AMD64"})
STORED = PassSpec(name="stored")
WEIGHTS, DYNAMIC = "int8 weights", "int8 dynamic"
ORIGINAL = Recipe(label="original")


@dataclass(frozen=True)
class Facts:
    """What decides the recipes: how many nodes of each operator can be quantized."""

    weighted: Mapping[str, int]
    """Conv, Gemm, MatMul, LSTM with constant weights -> how many."""
    elementwise: int
    looked_up: int
    """Gather nodes over constant float tables."""
    outlying: tuple[str, ...] = ()
    """Conv nodes whose inputs have outlying samples."""
    unrollable: tuple[str, ...] = ()
    """Those of them that can be written as a MatMul, whose output stays float."""
    stored: bool = True
    """Whether there are float weights at all."""


def candidates(facts: Facts, device: DeviceClass) -> tuple[Recipe, ...]:
    """Return the recipes that need no measurement, the most promising kinds first.

    Empty where the model has no weights to speak of.
    """
    if not facts.stored and not sum(facts.weighted.values()):
        return ()
    halves = PassSpec(name="stored", parameters={"bits": 16})
    return (
        Recipe(label="simplified", passes=(PassSpec(name="simplified"),)),
        Recipe(label=WEIGHTS, passes=(STORED,)),
        Recipe(label="16-bit weights", passes=(halves,)),
        *_dynamic(facts, device),
        *_static(facts, device),
        *_blocks(facts, device),
    )


def weight_format(device: DeviceClass) -> str:
    """Full range where int8 products are summed in 32 bits; else seven bits."""
    return "s8-7bit" if device.int8_saturates else "s8"


def activations(device: DeviceClass) -> str:
    """u8 x s8 is what x86 has instructions for, s8 x s8 what ARM has."""
    return "u8" if device.machine in X86 else "s8"


def dynamic_format(device: DeviceClass) -> str:
    """Weights of products whose activations get their scale while running: full range always.

    Those activations are u8. On Arm with i8mm u8 x s8 came out wrong (emulated, onnxruntime 1.31);
    u8 x u8 is right and as quick on all of them.
    """
    return "s8" if device.machine in X86 and not device.int8_saturates else "u8"


def _static(facts: Facts, device: DeviceClass) -> list[Recipe]:
    """Recipes of QuantizeLinear and DequantizeLinear, for convolutions above all."""
    if not any(facts.weighted.get(kind, 0) for kind in ("Conv", "Gemm", "MatMul")):
        return []
    base: dict[str, Any] = {"weights": weight_format(device), "activations": activations(device)}
    if facts.looked_up:
        base["operators"] = ["Conv", "Gemm", "MatMul", "Gather"]
    half = {**base, "reach": HALF_REACH}
    recurrent = _behind(facts, device, "LSTM")
    found = [
        _recipe("int8 per-channel", base, behind=recurrent),
        _recipe("int8 per-tensor", {**base, "per_channel": False}, behind=recurrent),
    ]
    if facts.elementwise:
        every = {**base, "operators": ["*"]}
        found.insert(0, _recipe("int8 all operators", every, behind=recurrent))
    if facts.outlying:
        found.append(_rescaled("int8 per-channel", base, facts))
        found.append(_rescaled("int8 per-channel, half ranges", half, facts))
    else:
        short = {**base, "reach": SHORT_REACH}
        found.append(_recipe("int8 per-channel, short ranges", short, behind=recurrent))
    if device.int8_saturates:
        # Weights of full range without saturation, at the cost of a slower kernel.
        full = {**half, "weights": "u8"}
        label = "int8 u8 weights"
        found.append(_rescaled(label, full, facts) if facts.outlying else _recipe(label, full))
    if facts.weighted.get("Conv", 0) and facts.weighted.get("MatMul", 0):
        behind = _behind(facts, device, "MatMul", "LSTM")
        parameters = {**base, "operators": ["Conv"]}
        found.append(_recipe("int8 Conv, dynamic MatMul", parameters, behind=behind))
    return found


def _dynamic(facts: Facts, device: DeviceClass) -> list[Recipe]:
    """Integers whose scales are found while it runs, for MatMul and recurrent layers."""
    passes = _behind(facts, device, "MatMul", "LSTM")
    found = [Recipe(label=DYNAMIC, passes=(*passes, STORED))] if passes else []
    if device.int8_saturates and passes and passes[0].name == "dynamic":
        # Further from the original, and quicker: the kernel adds pairs of products in 16 bits.
        seven = PassSpec(name="dynamic", parameters={"weights": weight_format(device)})
        found.append(Recipe(label=f"{DYNAMIC}, 7 bits", passes=(seven, *passes[1:], STORED)))
    return found


def _behind(facts: Facts, device: DeviceClass, *kinds: str) -> tuple[PassSpec, ...]:
    """The passes for products and recurrent layers whose scales are found while running."""
    weights = {"weights": dynamic_format(device)}
    names = {"MatMul": "dynamic", "LSTM": "recurrent"}
    return tuple(
        PassSpec(name=names[kind], parameters=weights)
        for kind in kinds
        if facts.weighted.get(kind, 0) or (kind == "MatMul" and facts.weighted.get("Gemm", 0))
    )


def _blocks(facts: Facts, device: DeviceClass) -> list[Recipe]:
    """Weights in small blocks with a scale each; without int8 dot products they are slower."""
    products = facts.weighted.get("MatMul", 0) + facts.weighted.get("Gemm", 0)
    if not products or not device.int8_dot:
        return []
    return [
        Recipe(
            label=f"int8 blocks of {size}",
            passes=(PassSpec(name="blocks", parameters={"block": size}), STORED),
        )
        for size in BLOCKS
    ]


def _recipe(
    label: str,
    parameters: Mapping[str, Any],
    *,
    before: tuple[PassSpec, ...] = (),
    behind: tuple[PassSpec, ...] = (),
) -> Recipe:
    quantization = PassSpec(name="quantization", parameters=dict(parameters))
    return Recipe(label=label, passes=(*before, quantization, *behind, STORED))


def _rescaled(label: str, parameters: Mapping[str, Any], facts: Facts) -> Recipe:
    """The recipe behind a rewriting, exact in float, of the nodes that have outlying samples."""
    before = [PassSpec(name="rescaling", parameters={"nodes": list(facts.outlying)})]
    label += ", rescaled"
    if facts.unrollable:
        inner = [rescaling.inner(name) for name in facts.unrollable]
        before.append(PassSpec(name="unrolling", parameters={"nodes": inner}))
        label += " and unrolled"
    return _recipe(label, parameters, before=tuple(before))
