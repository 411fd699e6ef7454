"""A cheap look at candidates before any trial: made, loaded, compared on the choosing part."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from compression import agreement, durable, pipeline, runtime
from compression.calibration.material import Material
from compression.errors import BadModel
from compression.job import Agreement, Recipe
from compression.passes import quantization

FEW = 6
"""Inputs that tell good nodes from bad ones."""


@dataclass(frozen=True)
class Preview:
    """One candidate as it looks on the choosing part; `problem` says why there is no file."""

    recipe: Recipe
    key: str
    path: Path
    sha256: str = ""
    size_bytes: int = 0
    agreement: Agreement | None = None
    sqnr_db: float = -200.0
    problem: str | None = None


def look(
    material: Material, model: onnx.ModelProto, original: Any, recipe: Recipe, *, folder: Path
) -> Preview:
    """Make a candidate and compare it. `original` is the original's session."""
    key = pipeline.key(recipe, *material.keys)
    path = folder / f"candidate-{key[:12]}.onnx"
    try:
        variant = pipeline.run(
            recipe, model, calibrate=material.calibrate, evidence=material.evidence
        )
        content = variant.SerializeToString(deterministic=True)
        judge = _compare(material, original, variant, material.looking)
    except BadModel as error:
        return Preview(recipe, key, path, problem=str(error))
    durable.replace(path, content)
    judged = judge.agreement("choosing")
    return Preview(
        recipe=recipe,
        key=key,
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        agreement=judged,
        sqnr_db=judge.sqnr_db()[judged.output],
    )


def single_node_sqnr(
    material: Material, model: onnx.ModelProto, original: Any, recipe: Recipe, *, stop: float
) -> dict[str, float]:
    """SQNR in dB of the judged output when each node alone is quantized as `recipe` says last.

    Ends early at `stop` (time.monotonic()); nodes without a figure are not in the answer.
    """
    figures: dict[str, float] = {}
    *before, last = recipe.passes
    earlier = Recipe(label=recipe.label, passes=tuple(before))
    base = pipeline.run(earlier, model, calibrate=material.calibrate, evidence=material.evidence)
    settings = quantization.Settings.model_validate(last.parameters)
    for node in quantization.eligible(base, settings):
        if time.monotonic() > stop:
            break
        alone = last.model_copy(update={"parameters": {**last.parameters, "only": [node]}})
        one = Recipe(label=node, passes=(alone,))
        try:
            variant = pipeline.run(
                one, base, calibrate=material.calibrate, evidence=material.evidence
            )
            judge = _compare(material, original, variant, material.looking[:FEW])
        except BadModel:
            continue
        figures[node] = judge.sqnr_db()[judge.agreement("choosing").output]
    return figures


def _compare(
    material: Material, original: Any, variant: onnx.ModelProto, indices: Sequence[int]
) -> agreement.Judge:
    candidate = runtime.session(variant)
    judge = agreement.Judge(material.outputs)
    for index in indices:
        feeds = material.inputs.sample(index)
        judge.add(runtime.run(original, feeds), runtime.run(candidate, feeds))
    return judge
