"""Runs a recipe: a model through its passes, one behind the other."""

import hashlib
import json
from dataclasses import replace

import onnx
from pydantic import ValidationError

from compression import workplace as kept
from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.job import Recipe
from compression.passes.catalogue import FLOAT, LAST, PASSES
from compression.passes.context import Calibrate, Context
from compression.words import explain
from compression.workplace import Workplace


def run(
    recipe: Recipe,
    model: onnx.ModelProto,
    *,
    calibrate: Calibrate,
    evidence: Evidence | None = None,
    workplace: Workplace | None = None,
) -> onnx.ModelProto:
    """Return the variant of a regular `model` that `recipe` asks for; `model` is not changed.

    `calibrate` gives the ranges of any model that the passes make of it on the way, `evidence`
    what else a pass asks about the calibration inputs. In the `workplace` what was trained is
    kept: a recipe that begins as an earlier one did goes on behind it.

    Raises:
        BadModel: an unknown pass or parameter, or a pass that finds nothing to do.
    """
    context = Context(reference=model, calibrate=calibrate, original=model, evidence=evidence)
    done = 0
    if workplace is not None:
        found, done, comparable = kept.find(recipe.passes, workplace, exact=FLOAT)
        model = found if done else model
        context = replace(context, reference=model if comparable else context.reference)
    for count, spec in enumerate(recipe.passes[done:], start=done + 1):
        passes = recipe.passes[:count]
        if spec.name in LAST and spec is not recipe.passes[-1]:
            why = f"what is {spec.name} is finished"
            raise BadModel(f"cannot run a pass behind {spec.name!r}: {why}")
        if spec.name not in PASSES:
            known = ", ".join(sorted(PASSES))
            raise BadModel(f"cannot run pass {spec.name!r}: known are {known}")
        if workplace is not None and spec.name == kept.NAME:
            context = replace(context, workplace=kept.place(passes, workplace))
        try:
            changed = PASSES[spec.name](model, spec.parameters, context)
        except ValidationError as error:
            raise BadModel(f"cannot run pass {spec.name!r}: {explain(error)}") from error
        except BadModel:
            if workplace is not None and spec.name == kept.NAME:
                kept.drop(passes, workplace)
            raise
        if spec.name in FLOAT | {kept.NAME} and context.reference is model:
            context = replace(context, reference=changed)
        model = changed
        if workplace is not None and spec.name == kept.NAME:
            kept.keep(model, passes, workplace)
    return model


def key(recipe: Recipe, *parts: str) -> str:
    """Name a recipe's result by what it hangs on: passes and `parts`, not the label."""
    passes = [spec.model_dump(mode="json") for spec in recipe.passes]
    text = json.dumps([passes, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
