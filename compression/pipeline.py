"""The compression passes by name, and what runs a recipe through them."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import onnx
from pydantic import ValidationError

from compression.errors import BadModel
from compression.job import PassSpec, Recipe
from compression.passes import dynamic, quantization
from compression.statistics import Range
from compression.words import explain

Pass = Callable[[onnx.ModelProto, dict[str, Any], dict[str, Range]], onnx.ModelProto]


def _quantize(
    model: onnx.ModelProto, parameters: dict[str, Any], ranges: dict[str, Range]
) -> onnx.ModelProto:
    return quantization.apply(
        model, quantization.Settings.model_validate(parameters), ranges=ranges
    )


def _dynamic(
    model: onnx.ModelProto, parameters: dict[str, Any], ranges: dict[str, Range]
) -> onnx.ModelProto:
    del ranges  # its scales are found while it runs
    return dynamic.apply(model, dynamic.Settings.model_validate(parameters))


PASSES: dict[str, Pass] = {"quantization": _quantize, "dynamic": _dynamic}


def run(recipe: Recipe, model: onnx.ModelProto, *, ranges: dict[str, Range]) -> onnx.ModelProto:
    """Return the variant of a regular `model` that `recipe` asks for; `model` is not changed.

    Raises:
        BadModel: an unknown pass or parameter, or a pass that finds nothing to do.
    """
    for spec in recipe.passes:
        if spec.name not in PASSES:
            known = ", ".join(sorted(PASSES))
            raise BadModel(f"cannot run pass {spec.name!r}: known are {known}")
        try:
            model = PASSES[spec.name](model, spec.parameters, ranges)
        except ValidationError as error:
            raise BadModel(f"cannot run pass {spec.name!r}: {explain(error)}") from error
    return model


def key(recipe: Recipe, *parts: str) -> str:
    """Name a recipe's result by what it hangs on: passes and `parts`, not the label."""
    passes = [_plain(spec) for spec in recipe.passes]
    text = json.dumps([passes, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(spec: PassSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")
