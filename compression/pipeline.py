"""The compression passes by name, and what runs a recipe through them."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import onnx
from pydantic import ValidationError

from compression.errors import BadModel
from compression.job import Recipe
from compression.passes import dynamic, quantization, rescaling, unrolling
from compression.statistics import Range
from compression.words import explain


class Calibrate(Protocol):
    """Gives the ranges of a model's float tensors on the calibration inputs."""

    def __call__(
        self, model: onnx.ModelProto, *, least_error: tuple[str, ...] = ()
    ) -> dict[str, Range]:
        """Return ranges by name; those in `least_error` end where 256 steps round best."""


Pass = Callable[[onnx.ModelProto, dict[str, Any], Calibrate], onnx.ModelProto]


def _quantize(
    model: onnx.ModelProto, parameters: dict[str, Any], calibrate: Calibrate
) -> onnx.ModelProto:
    settings = quantization.Settings.model_validate(parameters)
    ranges = calibrate(model)
    if settings.least_error:
        names = quantization.rounded(model, settings, ranges=ranges)
        ranges = calibrate(model, least_error=names)
    return quantization.apply(model, settings, ranges=ranges)


def _dynamic(
    model: onnx.ModelProto, parameters: dict[str, Any], calibrate: Calibrate
) -> onnx.ModelProto:
    del calibrate  # its scales are found while it runs
    return dynamic.apply(model, dynamic.Settings.model_validate(parameters))


def _rescale(
    model: onnx.ModelProto, parameters: dict[str, Any], calibrate: Calibrate
) -> onnx.ModelProto:
    del calibrate
    return rescaling.apply(model, rescaling.Settings.model_validate(parameters))


def _unroll(
    model: onnx.ModelProto, parameters: dict[str, Any], calibrate: Calibrate
) -> onnx.ModelProto:
    del calibrate
    return unrolling.apply(model, unrolling.Settings.model_validate(parameters))


PASSES: dict[str, Pass] = {
    "quantization": _quantize,
    "dynamic": _dynamic,
    "rescaling": _rescale,
    "unrolling": _unroll,
}


def run(recipe: Recipe, model: onnx.ModelProto, *, calibrate: Calibrate) -> onnx.ModelProto:
    """Return the variant of a regular `model` that `recipe` asks for; `model` is not changed.

    `calibrate` gives the ranges of any model that the passes make of it on the way.

    Raises:
        BadModel: an unknown pass or parameter, or a pass that finds nothing to do.
    """
    for spec in recipe.passes:
        if spec.name not in PASSES:
            known = ", ".join(sorted(PASSES))
            raise BadModel(f"cannot run pass {spec.name!r}: known are {known}")
        try:
            model = PASSES[spec.name](model, spec.parameters, calibrate)
        except ValidationError as error:
            raise BadModel(f"cannot run pass {spec.name!r}: {explain(error)}") from error
    return model


def key(recipe: Recipe, *parts: str) -> str:
    """Name a recipe's result by what it hangs on: passes and `parts`, not the label."""
    passes = [spec.model_dump(mode="json") for spec in recipe.passes]
    text = json.dumps([passes, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
