"""Cuts whole channels, heads and neurons out of a model and fits the weights behind them anew.

What is left is smaller and as regular. Groups of channels are found by compression/channels.py,
units chosen by pruning/planning.py, cut by pruning/surgery.py; pruning/refitting.py repairs.
"""

from typing import Annotated

import onnx
from pydantic import Field

from compression import channels
from compression.calibration.evidence import Evidence
from compression.pruning import (
    balance,
    behind,
    comparing,
    fading,
    parts,
    planning,
    refitting,
    surgery,
)
from compression.words import Words

Units = tuple[int, ...]


class Settings(Words):
    """The parameters of this pass."""

    keep: Annotated[float, Field(gt=0, lt=1)] | dict[str, int | Units]
    """The share of multiplications that is left; or by group, how many of its units stay, or
    which. Groups that are not named stay whole."""
    order: planning.By = "activations"
    """Which units go first: those that the others can stand in for, or those with small weights."""
    refit: bool = True
    """Whether the layers behind the cut are fitted anew to what the original's make."""
    ridge: float | None = Field(default=None, gt=0)
    """How strongly fitted weights are drawn to those before, in parts of the mean square of what
    they read; None: as samples decide that are not fitted to."""
    samples: int = Field(default=2048, ge=1)
    """The most calibration inputs that are run."""

    @property
    def needs_inputs(self) -> bool:
        """Whether calibration inputs decide anything."""
        given = self.keep if isinstance(self.keep, dict) else {}
        chosen = not given or any(isinstance(wish, int) for wish in given.values())
        return self.refit or (chosen and self.order == "activations")


def apply(
    model: onnx.ModelProto,
    settings: Settings,
    *,
    sample: channels.Arrays | None = None,
    evidence: Evidence | None = None,
) -> onnx.ModelProto:
    """Return a new model without some of the channels; names of tensors stay.

    `sample` is one run's inputs by name; without it the first of `evidence`, or random ones are
    made. Without `evidence` units go by magnitude and nothing is fitted; shares are then taken
    evenly.

    Raises:
        BadModel: nothing can be cut, or not so much; an unknown group or unit; every unit is kept;
            too few calibration inputs.
    """
    if evidence is None:
        return _made(model, settings, sample, None)
    evidence = evidence.wide
    question = f"structured pruning {settings.model_dump_json()}"
    return evidence.once(model, question, lambda: _made(model, settings, sample, evidence))


def _made(
    model: onnx.ModelProto,
    settings: Settings,
    sample: channels.Arrays | None,
    evidence: Evidence | None,
) -> onnx.ModelProto:
    divided = None if evidence is None else parts.divide(evidence, most=settings.samples)
    if sample is None and divided is not None:
        sample = next(feeds for _, feeds in divided.feeds())
    found = channels.find(model, sample=sample)
    keeps = _keeps(model, found, settings, divided)
    if divided is None or not settings.refit:
        return surgery.cut(model, found, keeps[0])

    def repaired(keep: planning.Keep, known: parts.Parts) -> onnx.ModelProto:
        cut = surgery.cut(model, found, keep)
        stays = behind.stays(model, found, keep)
        refitting.refit(model, cut, stays, known, ridge=settings.ridge)
        balance.restore(model, cut, known)
        return cut

    few = comparing.fewer(divided)
    if len(keeps) == 1:
        return repaired(keeps[0], divided)
    keep, cut = comparing.best(model, keeps, lambda one: repaired(one, few), few)
    return cut if few is divided else repaired(keep, divided)


def _keeps(
    model: onnx.ModelProto,
    found: channels.ChannelMap,
    settings: Settings,
    divided: parts.Parts | None,
) -> list[planning.Keep]:
    """What may stay: where nobody knows how losses fade, as by each of the forecasts."""
    by: planning.By = settings.order if divided is not None else "magnitude"
    wish = settings.keep
    if isinstance(wish, dict):
        counted = any(isinstance(each, int) for each in wish.values())
        given = divided if counted else None
        known = planning.study(
            model, found, by=by if counted else "magnitude", parts=given, sensitive=False
        )
        return [planning.for_widths(found, known, wish)]
    if divided is None:
        return [planning.for_share(found, planning.study(model, found, by=by), macs=wish)]
    known = divided.evidence.once(
        model,
        f"pruning order {by} {settings.samples}",
        lambda: planning.study(model, found, by=by, parts=divided, sensitive=False),
    )
    fades = fading.FADES if settings.refit else (1.0,)
    keeps = [planning.for_share(found, known, macs=wish, fade=fade) for fade in fades]
    return [keep for at, keep in enumerate(keeps) if keep not in keeps[:at]]
