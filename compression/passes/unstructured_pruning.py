"""Sets single weights to zero and fits the others anew; for the size of a packed file alone.

No layer computes less: this runtime multiplies zeros too. Zeros stay exact in every pass behind
that rounds weights, and `packed` stores them in next to nothing. Masks are chosen by pruning/masks,
what stays is fitted by pruning/masked_fitting, layer by layer behind what is pruned already.
"""

from typing import Annotated, Literal, Self

import numpy as np
import onnx
from pydantic import Field, model_validator

from compression.calibration.evidence import Evidence
from compression.errors import BadModel
from compression.pruning import masked_fitting, masks, parts, powers, refitting, shares, targets
from compression.pruning.behind import Stays
from compression.pruning.masks import Pattern
from compression.pruning.pairs import Pair
from compression.pruning.targets import Target
from compression.words import Words

_MOST_MEASURED = 256
"""Samples for the size of inputs; the fit sees more."""


class Settings(Words):
    """The parameters of this pass. Constants go by their own name, or that of a node's output."""

    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of weights that become zero; this, or a pattern."""
    order: masked_fitting.Order = "surgeon"
    """Which go: the smallest; those that contribute least to what the inputs make; or those that
    the others can best stand in for."""
    scope: Literal["row", "layer", "model"] = "model"
    """Where that share is taken: of each output, of each layer, or of all layers together."""
    pattern: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=2, le=64)]] | None = None
    """`[n, m]`: n of each m neighbouring inputs stay."""
    refit: bool = True
    """Whether what stays is fitted to what the original makes."""
    ridge: float | None = Field(default=None, gt=0)
    """How strongly, in parts of the mean square of what is read; None: as samples decide that are
    not fitted to."""
    samples: int = Field(default=2048, ge=1)
    """The most calibration inputs that are run."""
    least_bytes: int = Field(default=2048, ge=0)
    """Smaller float constants stay as they are."""
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("either sparsity or pattern says how many weights go")
        if self.pattern is not None and self.pattern[0] >= self.pattern[1]:
            raise ValueError(f"{self.pattern[0]} of each {self.pattern[1]} would be all of them")
        return self

    @property
    def share(self) -> float:
        """The share of weights that go."""
        if self.pattern is not None:
            return 1 - self.pattern[0] / self.pattern[1]
        return self.sparsity or 0.0

    @property
    def needs_inputs(self) -> bool:
        """Whether calibration inputs decide anything."""
        return self.refit or self.order != "magnitude"


def apply(
    model: onnx.ModelProto, settings: Settings, *, evidence: Evidence | None = None
) -> onnx.ModelProto:
    """Return a new model with zeros among its weights; names of tensors stay.

    Weights that no statistics can be gathered of go by magnitude: of shared constants, of bodies,
    of layers whose matrices do not fit into memory.

    Raises:
        BadModel: no weights to prune, or too few calibration inputs.
    """
    if evidence is None:
        return _made(model, settings, None)
    question = f"unstructured pruning {settings.model_dump_json()}"
    return evidence.once(model, question, lambda: _made(model, settings, evidence))


def sparsity(model: onnx.ModelProto, settings: Settings) -> float:
    """The share of zeros among the weights that this pass would prune."""
    found = _targets(model, settings)
    zeros = sum(int((one.rows == 0).sum()) for one in found)
    return zeros / max(1, sum(one.size for one in found))


def _made(model: onnx.ModelProto, settings: Settings, evidence: Evidence | None) -> onnx.ModelProto:
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    found = _targets(pruned, settings)
    if not found:
        raise BadModel(
            f"cannot prune single weights: no float weights of {settings.least_bytes} bytes"
        )
    divided = None if evidence is None else parts.divide(evidence, most=settings.samples)
    seen = {} if divided is None else _seen(model, found, settings, divided)
    patterns = _patterns(found, settings, seen)
    fitted: set[str] = set()
    if divided is not None and (settings.refit or settings.order == "surgeon"):
        apart = {one.name for one in found if not _fits(one, divided)}
        for one in found:
            if one.name in apart:  # first, so that the layers behind can make up for it
                _alone(one, patterns[one.name], settings, seen)
        together = [one for one in found if one.name not in apart]
        how = masked_fitting.How(settings.order, settings.refit, settings.ridge)
        fitted = apart | _fitted((model, pruned), together, patterns, divided, how)
    for one in found:
        if one.name not in fitted:
            _alone(one, patterns[one.name], settings, seen)
    return pruned


def _targets(model: onnx.ModelProto, settings: Settings) -> list[Target]:
    return targets.find(
        model, least_bytes=settings.least_bytes, exclude=settings.exclude, only=settings.only
    )


def _seen(
    model: onnx.ModelProto, found: list[Target], settings: Settings, divided: parts.Parts
) -> dict[str, masks.Floats]:
    if settings.order == "magnitude":
        return {}
    wanted = {one.name: one.read for one in found if one.read is not None}
    fewer = parts.Parts(divided.evidence, divided.judges[:_MOST_MEASURED])
    return powers.measure(model, wanted, fewer)


def _patterns(
    found: list[Target], settings: Settings, seen: dict[str, masks.Floats]
) -> dict[str, Pattern]:
    if settings.scope != "model" or settings.pattern is not None:
        scope: masks.Scope = "layer" if settings.scope == "layer" else "row"
        pattern = Pattern(settings.share, scope, settings.pattern)
        return {one.name: pattern for one in found}
    scores = shares.Scores()
    for one in found:
        scores.add(one.name, targets.scored(one, seen))
    return {name: Pattern(share, "layer") for name, share in scores.shares(settings.share).items()}


def _stays(one: Target) -> Stays:
    """No channel goes."""
    outputs = 0 if one.layer is None else one.layer.form.outputs
    return Stays(np.ones(outputs, bool), np.ones(one.inputs, bool))


def _fits(one: Target, divided: parts.Parts) -> bool:
    """Whether a layer's matrices fit into the memory of the job."""
    bound = divided.evidence.work_memory_mib * 2**20
    return one.layer is not None and Pair(one.layer, one.layer, _stays(one)).bytes <= bound


def _fitted(
    models: tuple[onnx.ModelProto, onnx.ModelProto],
    found: list[Target],
    patterns: dict[str, Pattern],
    divided: parts.Parts,
    how: masked_fitting.How,
) -> set[str]:
    """Mask and fit in the order of the graph; returns the constants that were.

    `models`: the one that is pruned, as it was, and as it becomes.
    """
    layers = {one.layer.name: one for one in found if one.layer}
    fit = masked_fitting.fitter({name: patterns[one.name] for name, one in layers.items()}, how)
    stays = {name: _stays(one) for name, one in layers.items()}
    done = refitting.refit(*models, stays, divided, fit=fit)
    return {layers[one.layer].name for one in done}


def _alone(
    one: Target, pattern: Pattern, settings: Settings, seen: dict[str, masks.Floats]
) -> None:
    """Mask one constant by itself."""
    rows = one.rows
    if settings.order == "magnitude" or one.name not in seen:
        scores = masks.by_magnitude(rows)
    else:
        scores = masks.by_activations(rows, seen[one.name])
    one.write(np.where(pattern.keep(scores), rows, 0.0))
