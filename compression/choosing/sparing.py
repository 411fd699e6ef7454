"""What to try where a budget's size is below all that integers reach: packing, then zeros (pure).

Neither makes a model faster or smaller in memory, and zeros cost likeness: nothing but a size that
is asked for brings them up.
"""

import math
from collections.abc import Sequence

from compression.choosing import verdict
from compression.choosing.preview import Preview
from compression.job import Budget, PassSpec, Recipe
from compression.passes import catalogue

STEPS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of zeros."""
TRIED = 2
"""Steps that look as if they met the size: the first of them, and more room for an estimate."""
RUNS = 400.0
"""About how many runs of the model it takes to prune it."""
ALIKE = 1.03
"""Files no larger than this times the smallest are as small."""
AS_FAST = 1.1
"""What takes no more time than this times the fastest is as fast."""
PACKED = "packed"
_VALUE_BITS = 6.7
"""What is left of the 8 bits of a weight once it is coded, where nobody has packed the model yet:
measured, 4.8 to 6.9."""


def packing(looks: Sequence[Preview], budget: Budget, *, original_bytes: int) -> tuple[Recipe, ...]:
    """Return what to pack as it is, which costs no likeness: () where no size asks for it."""
    bound, bases = _bound(budget, original_bytes), _bases(looks, budget)
    if bound is None or not bases or min(one.size_bytes for one in bases) <= bound:
        return ()
    return tuple(sparse(one.recipe, 0.0) for one in bases)


def recipes(looks: Sequence[Preview], budget: Budget, *, original_bytes: int) -> tuple[Recipe, ...]:
    """Return what to try with zeros; nothing where one that is alike and as fast meets the size.

    How much packing leaves is read off the base's own packed look, where there is one.
    """
    bound, bases = _bound(budget, original_bytes), _bases(looks, budget)
    if bound is None or not bases:
        return ()
    base, *_ = bases
    close = [one for one in looks if _alike(one, budget) and one.size_bytes <= bound]
    if any(one.cpu_ratio <= AS_FAST * base.cpu_ratio for one in close):
        return ()
    bits = _VALUE_BITS
    for look in looks:
        if look.agreement and look.recipe == sparse(base.recipe, 0.0):
            bits = 8 * look.size_bytes / base.size_bytes
    steps = [
        share for share in STEPS if packed_bytes(base.size_bytes, share, value_bits=bits) <= bound
    ]
    # Beyond all estimates the last one still shows how near it comes.
    return tuple(sparse(base.recipe, share) for share in (steps[:TRIED] or STEPS[-1:]))


def packed_bytes(size_bytes: int, share: float, *, value_bits: float = _VALUE_BITS) -> float:
    """Estimate the packed file of a model whose bytes are weights of 8 bits."""
    places = 0.0
    if share:
        places = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return size_bytes * (places + (1 - share) * value_bits) / 8


def sparse(recipe: Recipe, share: float) -> Recipe:
    """Return a recipe with a share of zeros before all that rounds, and packed at the end."""
    packed = PassSpec(name="packed")
    if not share:
        return Recipe(label=f"{recipe.label}, packed", passes=(*recipe.passes, packed))
    at = sum(1 for spec in recipe.passes if spec.name in catalogue.FLOAT)
    zeros = PassSpec(name="unstructured_pruning", parameters={"sparsity": share})
    passes = (*recipe.passes[:at], zeros, *recipe.passes[at:], packed)
    return Recipe(label=f"{recipe.label}, {share:.0%} zeros, packed", passes=passes)


def _bound(budget: Budget, original_bytes: int) -> float | None:
    bounds = (
        budget.size_mib and budget.size_mib * 2**20,
        budget.size_ratio and budget.size_ratio * original_bytes,
    )
    return min((bound for bound in bounds if bound), default=None)


def _bases(looks: Sequence[Preview], budget: Budget) -> list[Preview]:
    """Of those about as small as the smallest that is alike enough: the nearest of the fastest;
    the nearest of all; and the fast one of fewest passes, since weights that were rounded by more
    than their own values pack less well. Zeros will cost some likeness.
    """
    alike = [
        look
        for look in looks
        if _alike(look, budget) and all(spec.name != PACKED for spec in look.recipe.passes)
    ]
    least = min((look.size_bytes for look in alike), default=0)
    small = [look for look in alike if look.size_bytes <= ALIKE * least]
    quickest = min((look.cpu_ratio for look in small), default=0.0)
    fast = [look for look in small if look.cpu_ratio <= AS_FAST * quickest]
    chosen = [max(some, key=lambda look: look.sqnr_db) for some in (fast, small) if some]
    chosen += sorted(fast, key=lambda look: (len(look.recipe.passes), -look.sqnr_db))[:1]
    return list({look.key: look for look in chosen}.values())


def _alike(look: Preview, budget: Budget) -> bool:
    least = verdict.least_agreement(budget)
    return look.agreement is not None and look.agreement.value >= least
