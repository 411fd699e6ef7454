"""Proposes cuts by forecasts: of least loss within a share of the time that is allowed, and even.

Each is asked for again until its own forecast is just within what it may take.
"""

from collections.abc import Callable
from dataclasses import dataclass

from compression.choosing import allocation
from compression.choosing.asked import Asked
from compression.choosing.foreseeing import Foresight
from compression.choosing.making import FLOAT, Making
from compression.job import Recipe

MOST_TRIES = 5
"""How often the search is asked again where its answer costs more or less than it thought."""
EVEN = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2)
"""Shares of the units of each group."""
_UNBOUNDED = 1e3


@dataclass(frozen=True)
class Proposal:
    """A recipe, and which share of the original's time it is thought to take."""

    recipe: Recipe
    family: str
    cost: float | None = None
    """Of its kernels, in references."""
    predicted: float | None = None


class Proposing:
    """The proposals of one base, while forecasts learn from what is looked at."""

    def __init__(
        self,
        making: Making,
        foresight: Foresight,
        *,
        ratio: float | None,
        in_time: Callable[[], bool],
    ) -> None:
        """`ratio` is the most of the original's time; None: it is not bounded."""
        self._making = making
        self._foresight = foresight
        self._ratio = ratio
        self._in_time = in_time

    def searched(self, share: float, size: float) -> Proposal | None:
        """What loses least within a share of the bound, by what its own kernels cost.

        The search adds up layers, which is not what their model costs: it is asked again until what
        it finds is forecast to take just about what it may. Where nothing is forecast to be so
        fast, it is the fastest there is: forecasts may be wrong.
        """
        target = self._target(share)
        # Where integers stop paying, what it finds runs like float: the wider bound is drawn in.
        bound = max(
            self._foresight.cost_for(target, family) for family in (self._making.family, FLOAT)
        )
        asked, best = Asked(target, bound), None
        for _ in range(MOST_TRIES):
            found = allocation.cheapest(self._making.priced.problem, time=asked.bound, size=size)
            if found is None and best is None:
                found = allocation.fastest(
                    self._making.priced.problem,
                    over=asked.bound,
                    within=self._making.whole(),
                    size=size,
                )
            if found is None or not self._in_time():
                break
            recipe = self._making.recipe(found.options)
            if recipe is None:  # nothing is cut, and that was not fast enough
                asked = asked.less(found.time)
                continue
            proposal = self._foreseen(recipe)
            if best is None or asked.better(proposal.predicted, best.predicted):
                best = proposal
            predicted = proposal.predicted
            if predicted is None or self._ratio is None or asked.near(predicted):
                break
            asked = asked.again(predicted)
        return best

    def even(self, share: float, size: float) -> Proposal | None:
        """The same share of every group, as much as the bounds allow; the least if none does."""
        most = self._target(share)
        proposal = None
        for kept in EVEN:
            recipe, elements = self._making.even(kept)
            if recipe is None or elements > size or not self._in_time():
                continue
            proposal = self._foreseen(recipe)
            if proposal.predicted is None or proposal.predicted <= most:
                break
        return proposal

    def _foreseen(self, recipe: Recipe) -> Proposal:
        family = self._making.family_of(recipe)
        cost = self._foresight.of_recipe(recipe)
        predicted = None if cost is None else self._foresight.ratio(cost, family)
        return Proposal(recipe, family, cost, predicted)

    def _target(self, share: float) -> float:
        return _UNBOUNDED if self._ratio is None else share * self._ratio
