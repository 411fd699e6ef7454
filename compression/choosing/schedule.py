"""Which candidates are worth training, where training stands in their recipes, and for how long.

Pure. A cut model is trained in float, before anything rounds (Han et al., "Learning both weights
and connections", 2015: prune, then train). Rounding is trained with the rounding in the loop
(Jacob et al., CVPR 2018, section 3), behind the passes that decide it. Where a recipe does both,
first the one, then the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from compression import ladder
from compression.choosing import front, verdict
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.job import Budget, PassSpec, Recipe
from compression.passes.catalogue import FLOAT
from compression.workplace import NAME

CUTS = frozenset({"structured_pruning"})
ROUNDS = frozenset({"quantization", "reconstruction", "correction"})
"""Those behind which rounding is decided."""
MOST = 3
"""Candidates that are trained."""
LEAST_SECONDS = 60.0
"""For one candidate; with less, fewer are trained."""
TRAINING = 0.75
"""Of the minutes; the rest is for making, comparing and loading."""
FLOAT_SHARE = 2 / 3
"""Of a candidate's time, for the float model where the rounded one is trained as well."""
FARTHEST = 0.3
"""Below the least agreement: what is farther off is not brought back."""


@dataclass(frozen=True)
class Stage:
    """One training of a candidate. `float_` says that it comes before rounding."""

    float_: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """A candidate that gets trained, in these stages."""

    look: Preview
    stages: tuple[Stage, ...]


def plans(
    looks: Sequence[Preview], budget: Budget, wanted: Bounds, *, minutes: float
) -> tuple[Plan, ...]:
    """Choose what to train within so many minutes, the most promising first.

    Of those that no other beats, first what keeps the bounds and misses the least agreement, the
    nearest miss first; then what meets it and can still gain, the fastest first.
    """
    able = [one for one in looks if one.agreement and stages(one.recipe, seconds=1.0)]
    unbeaten = front.split([one for one in looks if one.agreement]).front
    least = verdict.least_agreement(budget)
    hopeful = [
        one
        for one in able
        if any(one is other for other in unbeaten)
        and wanted.hold(one)
        and least - FARTHEST <= _value(one) < 1.0
    ]
    seconds = TRAINING * 60.0 * minutes
    count = max(1, min(MOST, int(seconds / LEAST_SECONDS)))
    chosen = sorted(hopeful, key=lambda one: _place(one, least))[:count]
    return tuple(Plan(one, stages(one.recipe, seconds=seconds / len(chosen))) for one in chosen)


def _place(one: Preview, least: float) -> tuple[float, ...]:
    error = ladder.standard_error(one.agreement) if one.agreement else 0.0
    misses = _value(one) + error < least
    return (0.0, least - _value(one)) if misses else (1.0, one.cpu_ratio)


def _value(one: Preview) -> float:
    return one.agreement.value if one.agreement else 0.0


def stages(recipe: Recipe, *, seconds: float) -> tuple[Stage, ...]:
    """How a recipe is trained in so many seconds; empty where nothing in it can be trained."""
    names = {spec.name for spec in recipe.passes}
    if NAME in names or not names & (CUTS | {"quantization"}):
        return ()
    if not names & CUTS:
        return (Stage(float_=False, seconds=seconds),)
    if "quantization" not in names:
        return (Stage(float_=True, seconds=seconds),)
    first = FLOAT_SHARE * seconds
    return (Stage(float_=True, seconds=first), Stage(float_=False, seconds=seconds - first))


def trained(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe with one more training: behind what cuts, or behind what rounds."""
    if stage.float_:
        at = sum(1 for spec in recipe.passes if spec.name in FLOAT)
        label = f"{recipe.label}, recovered"
    else:
        at = 1 + max(n for n, spec in enumerate(recipe.passes) if spec.name in ROUNDS)
        label = f"{recipe.label}, recovered in int8"
    spec = PassSpec(name=NAME, parameters={"seconds": round(stage.seconds, 1)})
    return Recipe(label=label, passes=(*recipe.passes[:at], spec, *recipe.passes[at:]))


def untrained(recipe: Recipe) -> Recipe | None:
    """The same recipe without its last training; None where it has none."""
    at = max((n for n, spec in enumerate(recipe.passes) if spec.name == NAME), default=None)
    if at is None:
        return None
    left = (*recipe.passes[:at], *recipe.passes[at + 1 :])
    return Recipe(label=f"{recipe.label}, without its training", passes=left)
