"""The compression passes by name, each given its settings and what it needs of the context."""

from collections.abc import Callable
from typing import Any

import onnx

from compression import workplace as kept
from compression.errors import BadModel
from compression.passes import (
    blocks,
    correction,
    dead_channels,
    dynamic,
    equalization,
    packed,
    prepared,
    quantization,
    reconstruction,
    recovery,
    recurrent,
    rescaling,
    stored,
    structured_pruning,
    unrolling,
    unstructured_pruning,
)
from compression.passes.context import Context

Pass = Callable[[onnx.ModelProto, dict[str, Any], Context], onnx.ModelProto]


def _quantize(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    settings = quantization.Settings.model_validate(parameters)
    ranges = context.calibrate(model)
    if settings.least_error:
        names = quantization.rounded(model, settings, ranges=ranges)
        ranges = context.calibrate(model, least_error=names)
    return quantization.apply(model, settings, ranges=ranges)


def _dynamic(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    del context  # its scales are found while it runs
    return dynamic.apply(model, dynamic.Settings.model_validate(parameters))


def _rescale(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    del context
    return rescaling.apply(model, rescaling.Settings.model_validate(parameters))


def _unroll(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    del context
    return unrolling.apply(model, unrolling.Settings.model_validate(parameters))


def _block(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    del context
    return blocks.apply(model, blocks.Settings.model_validate(parameters))


def _recur(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    del context
    return recurrent.apply(model, recurrent.Settings.model_validate(parameters))


def _store(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    try:
        return stored.apply(model, stored.Settings.model_validate(parameters))
    except BadModel:
        if model is context.reference:
            raise
        return model  # the passes before it left no float weights


def _correct(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    settings = correction.Settings.model_validate(parameters)
    return correction.apply(model, settings, reference=context.reference, evidence=context.seen())


def _keep(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    """What the regular form alone is worth: it may be faster than what was exported."""
    del parameters, context
    return model


def _pack(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    del context
    packed.Settings.model_validate(parameters)
    return model  # a matter of the file, see packed.content


def _prepare(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    del context
    prepared.Settings.model_validate(parameters)
    return prepared.apply(model)


def _equalize(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    settings = equalization.Settings.model_validate(parameters)
    return equalization.apply(model, settings, evidence=context.evidence)


def _reconstruct(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    settings = reconstruction.Settings.model_validate(parameters)
    return reconstruction.apply(
        model, settings, reference=context.reference, evidence=context.seen()
    )


def _want_float(model: onnx.ModelProto, context: Context, doing: str) -> None:
    if model is not context.reference:
        first = doing.partition(" ")[0]
        raise BadModel(f"cannot {doing} behind a pass that is not exact in float: {first} first")


def _prune(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    _want_float(model, context, "cut channels")
    settings = structured_pruning.Settings.model_validate(parameters)
    evidence = context.seen() if settings.needs_inputs else None
    return structured_pruning.apply(model, settings, evidence=evidence)


def _recover(
    model: onnx.ModelProto, parameters: dict[str, Any], context: Context
) -> onnx.ModelProto:
    if model is context.original:
        raise BadModel("cannot recover what nothing was taken from: cut or quantize first")
    return recovery.apply(
        model,
        recovery.Settings.model_validate(parameters),
        original=context.original,
        evidence=context.seen(),
        reference=None if model is context.reference else context.reference,
        folder=context.workplace.folder if context.workplace else None,
        report=context.workplace.report if context.workplace else None,
        judged_later=context.workplace is not None,  # see choosing/recovering.py
    )


def _bury(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    _want_float(model, context, "cut channels")
    settings = dead_channels.Settings.model_validate(parameters)
    return dead_channels.apply(model, settings, evidence=context.evidence)


def _zero(model: onnx.ModelProto, parameters: dict[str, Any], context: Context) -> onnx.ModelProto:
    _want_float(model, context, "prune weights")
    settings = unstructured_pruning.Settings.model_validate(parameters)
    evidence = context.seen() if settings.needs_inputs else None
    return unstructured_pruning.apply(model, settings, evidence=evidence)


PASSES: dict[str, Pass] = {
    "simplified": _keep,
    "quantization": _quantize,
    "dynamic": _dynamic,
    "blocks": _block,
    "recurrent": _recur,
    "stored": _store,
    "rescaling": _rescale,
    "unrolling": _unroll,
    "correction": _correct,
    "equalization": _equalize,
    "reconstruction": _reconstruct,
    "structured_pruning": _prune,
    "unstructured_pruning": _zero,
    "dead_channels": _bury,
    kept.NAME: _recover,
    prepared.NAME: _prepare,
    packed.NAME: _pack,
}
EXACT = frozenset({"equalization", "rescaling", "unrolling"})
"""Passes that change nothing but float rounding: what they return is the next ones' reference."""
FLOAT = EXACT | {"dead_channels", "structured_pruning", "unstructured_pruning"}
"""Passes that return a float model which the next ones approximate: EXACT, cuts and zeros."""
LAST = frozenset({packed.NAME, prepared.NAME})
"""Passes behind which there is none."""
