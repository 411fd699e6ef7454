"""What to try where a budget's size is below all that integers reach: packing, then zeros (pure).

Neither makes a model faster or smaller in memory, and zeros cost likeness: nothing but a size that
is asked for brings them up.
"""

import math
from collections.abc import Sequence

from compression import pipeline
from compression.choosing import verdict
from compression.choosing.preview import Preview
from compression.job import Budget, PassSpec, Recipe

STEPS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of zeros."""
TRIED = 2
"""Steps that look as if they met the size: the first of them, and more room for an estimate."""
RUNS = 400.0
"""About how many runs of the model it takes to prune it."""
_VALUE_BITS = 6.7
"""What is left of the 8 bits of a weight once it is coded: measured, 5.6 to 6.9."""


def recipes(looks: Sequence[Preview], budget: Budget, *, original_bytes: int) -> tuple[Recipe, ...]:
    """Return what to try beyond these looks; nothing where one that is alike meets the size."""
    bounds = (
        budget.size_mib and budget.size_mib * 2**20,
        budget.size_ratio and budget.size_ratio * original_bytes,
    )
    given = [bound for bound in bounds if bound]
    base = _base(looks, budget)
    if not given or base is None or base.size_bytes <= min(given):
        return ()
    bound = min(given)
    steps = [share for share in STEPS if packed_bytes(base.size_bytes, share) <= bound]
    # Beyond all estimates the last one still shows how near it comes.
    return tuple(sparse(base.recipe, share) for share in (steps[:TRIED] or STEPS[-1:]))


def packed_bytes(size_bytes: int, share: float) -> float:
    """Estimate the packed file of a model whose bytes are weights of 8 bits."""
    places = 0.0
    if share:
        places = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return size_bytes * (places + (1 - share) * _VALUE_BITS) / 8


def sparse(recipe: Recipe, share: float) -> Recipe:
    """Return a recipe with a share of zeros before all that rounds, and packed at the end."""
    packed = PassSpec(name="packed")
    if not share:
        return Recipe(label=f"{recipe.label}, packed", passes=(*recipe.passes, packed))
    at = sum(1 for spec in recipe.passes if spec.name in pipeline.FLOAT)
    zeros = PassSpec(name="unstructured_pruning", parameters={"sparsity": share})
    passes = (*recipe.passes[:at], zeros, *recipe.passes[at:], packed)
    return Recipe(label=f"{recipe.label}, {share:.0%} zeros, packed", passes=passes)


def _base(looks: Sequence[Preview], budget: Budget) -> Preview | None:
    """The smallest that is alike enough; zeros will cost some of that."""
    least = verdict.least_agreement(budget)
    alike = [look for look in looks if look.agreement and look.agreement.value >= least]
    return min(alike, key=lambda look: look.size_bytes, default=None)
