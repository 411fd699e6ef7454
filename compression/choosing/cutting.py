"""Where nothing reaches a budget: widths and precisions chosen by what they cost here, looked at.

Int8 comes first. What it cannot reach, cut channels may: those whose loss is least for the time
and the size that they save on this device. Proposals are made and looked at like any candidate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from compression import working
from compression.calibration.material import Material
from compression.choosing import allocation, bounds, preview, pricing, studying
from compression.choosing.bounds import Bounds
from compression.choosing.foreseeing import Foresight
from compression.choosing.making import FLOAT, Making, names
from compression.choosing.preview import Preview
from compression.choosing.search import WEIGHTS
from compression.errors import BadModel
from compression.job import Budget, Recipe, Runtime
from compression.latency.layers import INTEGERS
from compression.latency.table import Table
from compression.regular import reading

PRUNED = Recipe(label="pruned")
"""Stands for all cuts of a model that cannot be cut."""
TARGETS = (0.97, 0.88)
"""Of the bound of time: a forecast that is a little wrong shall not miss all."""
SMALLER = 0.97
"""Of the bound of size."""
TIGHTER = 0.98
MOST_TRIES = 4
"""How often the search is asked again where its answer costs more than it thought."""
EVEN = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2)
CUT, SPARSE = "structured_pruning", "unstructured_pruning"
FIRST_SHARE = 0.7
"""Of the constants, where a bound of memory is to be reached and nothing tells how many."""
MOST_AGAIN = 3
"""How often all is asked again with what the looks have taught."""
MOST_LIGHTER = 3
"""Cuts that are tried for the sake of memory."""
_UNBOUNDED = 1e3

Say = Callable[[str, str, float], None]


@dataclass(frozen=True)
class Proposal:
    """A recipe, and which share of the original's time it is thought to take."""

    recipe: Recipe
    family: str
    cost: float | None = None
    """Of its kernels, in references."""
    predicted: float | None = None


class Cutting:
    """The proposals for one job whose budget asks for more than int8."""

    def __init__(
        self,
        material: Material,
        model: onnx.ModelProto,
        table: Table,
        *,
        look: Callable[[Recipe], Preview],
        budget: Budget,
        wanted: Bounds,
        folder: Path,
        say: Say,
        stop: float,
        earlier: Sequence[Recipe] = (),
    ) -> None:
        self.problem: str | None = None
        """Why nothing is proposed, where that is so."""
        self._material = material
        self._model = model
        self._table = table
        self._look = look
        self._budget = budget
        self._wanted = wanted
        self._folder = folder
        self._say = say
        self._stop = stop
        self._earlier = [one for one in earlier if one.passes and one.passes[0].name == CUT]
        self._new: list[Preview] = []

    def run(self, looks: list[Preview]) -> list[Preview]:
        """Return further looks; none where some look reaches the budget, or nothing can be cut."""
        # Single weights that are cut buy size alone, and may lose more than whole channels.
        looks = [one for one in looks if SPARSE not in names(one.recipe)]
        if self._wanted == Bounds() or bounds.reached(looks, self._wanted, self._budget):
            return []
        self._say("cutting", "what each group of channels costs and loses", 0.5)
        base = _base(looks, self._budget)
        try:
            studied = studying.study(self._model, self._material.evidence)
            how = Runtime(threads=self._material.threads)
            foresight = Foresight(
                self._material, self._model, studied, self._table, folder=self._folder, how=how
            )
            whole = self._measured(looks, base, foresight)
            if False not in whole:
                self.problem = "not tried: there was no time to see what layers cost here"
                return []
            loss = 0.0 if base is None else float(10 ** (-base.sqnr_db / 10))
            facts = studying.facts(
                self._model, studied, self._table,
                passes=base.recipe.passes if base else (), whole=whole, rounding_loss=loss,
                folder=self._folder, how=how, stop=lambda: not self._in_time(),
            )  # fmt: skip
            self._propose(Making(facts, studied, pricing.price(facts), base), foresight)
        except BadModel as error:
            self.problem = str(error)
        self._recall()
        return self._new

    def _recall(self) -> None:
        """Where nothing reaches the budget, add what was cut for another and is within its bounds.

        Else the gentlest cuts are here already: one that was meant for a tighter budget would be
        faster, and among equals by a few inputs that comes first.
        """
        if bounds.reached(self._new, self._wanted, self._budget):
            return
        for recipe in self._earlier:
            found = self._look(recipe)
            if found.agreement and self._wanted.hold(found):
                self._new += [found] if all(one.key != found.key for one in self._new) else []

    def _in_time(self) -> bool:
        return working.now_s() < self._stop

    def _measured(
        self, looks: list[Preview], base: Preview | None, foresight: Foresight
    ) -> dict[bool, float]:
        """What the whole model's kernels cost, in float and as the best look runs it."""
        ratios = {one.recipe.label: one.cpu_ratio for one in looks if one.agreement}
        ratio = ratios.get("simplified", ratios.get(WEIGHTS, 1.0))
        whole: dict[bool, float] = {}
        if cost := foresight.cost(self._model):
            whole[False] = cost
            foresight.learn(FLOAT, cost, ratio)
        if base is not None:
            if not base.path.exists():
                preview.make(self._material, self._model, base)
            if cost := foresight.cost(reading.load(base.path)):
                whole[True] = cost
                foresight.learn(base.key, cost, base.cpu_ratio)
        return whole

    def _propose(self, making: Making, foresight: Foresight) -> None:
        """Look at what the search chooses, at even cuts, and again where a look is too slow."""
        size = float("inf")
        if self._wanted.size_bytes is not None:
            size = making.elements_for(SMALLER * self._wanted.size_bytes)
        tries = TARGETS if self._wanted.ratio is not None else TARGETS[:1]
        for share in tries:
            self._try(self._searched(making, foresight, share, size), foresight)
        if self._wanted.peak_mib is not None:
            size = self._lightened(making, foresight, size)
        self._try(self._even(making, foresight, size), foresight)
        for _ in range(MOST_AGAIN):  # it knows more by now: forecasts were too high or too low
            before = len(self._new)
            size *= self._too_large()
            ours = [one for one in self._new if one.agreement]
            share = TARGETS[0 if any(self._wanted.hold(one) for one in ours) else -1]
            self._try(self._searched(making, foresight, share, size), foresight)
            self._try(self._even(making, foresight, size), foresight)
            if len(self._new) == before:
                break

    def _too_large(self) -> float:
        """By what the constants have to shrink, where files came out larger than was thought."""
        most = self._wanted.size_bytes
        made = [one.size_bytes for one in self._new if one.agreement]
        return 1.0 if most is None or not made or min(made) <= most else SMALLER * most / min(made)

    def _lightened(self, making: Making, foresight: Foresight, size: float) -> float:
        """Cut more and more, until memory is within its bound; returns how many constants stay.

        What a model takes is about a constant and its weights and values, which go together: the
        next cut is as deep as a straight line through the last two looks says.
        """
        wanted, whole = self._wanted.peak_mib or 0.0, making.elements()
        points = [(1.0, peak) for peak in [making.peak_mib] if peak is not None]
        share = min(FIRST_SHARE, size / whole)
        for _ in range(MOST_LIGHTER):
            before = len(self._new)
            self._try(self._searched(making, foresight, TARGETS[0], share * whole), foresight)
            tried = [one for one in self._new[before:] if one.peak_mib is not None]
            if not tried or self._wanted.hold(tried[-1]):
                break
            points.append((share, tried[-1].peak_mib or 0.0))
            share = bounds.next_share(points, wanted)
        return share * whole

    def _searched(
        self, making: Making, foresight: Foresight, share: float, size: float
    ) -> Proposal | None:
        """What loses least within a share of the bound, by what its own kernels cost.

        Where nothing is forecast to be so fast, the fastest there is: forecasts may be wrong.
        """
        target = _UNBOUNDED if self._wanted.ratio is None else share * self._wanted.ratio
        # Where integers stop paying, what it finds runs like float: the wider bound is drawn in.
        bound = max(foresight.cost_for(target, family) for family in (making.family, FLOAT))
        proposal = None
        for _ in range(MOST_TRIES):
            found = allocation.cheapest(making.priced.problem, time=bound, size=size)
            if found is None and proposal is None:
                found = allocation.fastest(
                    making.priced.problem, over=bound, within=making.whole(), size=size
                )
            recipe = making.recipe(found.options) if found is not None else None
            if recipe is None or not self._in_time():
                break
            proposal = _foreseen(recipe, making, foresight)
            if proposal.predicted is None or proposal.predicted <= target:
                break
            bound *= TIGHTER * target / proposal.predicted
        return proposal

    def _even(self, making: Making, foresight: Foresight, size: float) -> Proposal | None:
        """The same share of every group, as much as the bounds allow; the least if none does."""
        most = _UNBOUNDED if self._wanted.ratio is None else TARGETS[0] * self._wanted.ratio
        proposal = None
        for share in EVEN:
            recipe, elements = making.even(share)
            if recipe is None or elements > size or not self._in_time():
                continue
            proposal = _foreseen(recipe, making, foresight)
            if proposal.predicted is None or proposal.predicted <= most:
                break
        return proposal

    def _try(self, proposal: Proposal | None, foresight: Foresight) -> None:
        if proposal is None or not self._in_time():
            return
        self._say("cutting", proposal.recipe.label, 0.5)
        found = self._look(proposal.recipe)
        if any(one.key == found.key for one in self._new):
            return
        self._new.append(found.model_copy(update={"predicted_ratio": proposal.predicted}))
        if found.agreement is not None and proposal.cost:
            foresight.learn(proposal.family, proposal.cost, found.cpu_ratio)


def _foreseen(recipe: Recipe, making: Making, foresight: Foresight) -> Proposal:
    family = making.family_of(recipe)
    cost = foresight.of_recipe(recipe)
    predicted = None if cost is None else foresight.ratio(cost, family)
    return Proposal(recipe, family, cost, predicted)


def _base(looks: list[Preview], budget: Budget) -> Preview | None:
    """The fastest look in integers that is close enough; where none is, the closest."""
    found = [one for one in looks if one.agreement and names(one.recipe) & set(INTEGERS)]
    close = [one for one in found if bounds.reached([one], Bounds(), budget)]
    if close:
        return min(close, key=lambda one: (one.cpu_ratio, -one.sqnr_db))
    return max(found, key=lambda one: one.sqnr_db, default=None)
