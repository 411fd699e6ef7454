"""Where nothing reaches a budget: widths and precisions chosen by what they cost here, looked at.

Int8 comes first. What it cannot reach, cut channels may: those whose loss is least for the time
and the size that they save on this device. Proposals are made and looked at like any candidate.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from compression import working
from compression.calibration.material import Material
from compression.choosing import bounds, nearing, preview, pricing, sparing, studying
from compression.choosing.bounds import Bounds
from compression.choosing.foreseeing import Foresight
from compression.choosing.making import FLOAT, Making, names
from compression.choosing.preview import Preview
from compression.choosing.proposing import Proposal, Proposing
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
CUT, SPARSE = "structured_pruning", "unstructured_pruning"
FIRST_SHARE = 0.7
"""Of the constants, where a bound of memory is to be reached and nothing tells how many."""
MOST_AGAIN = 3
"""How often all is asked again with what the looks have taught."""
MOST_LIGHTER = 3
"""Cuts that are tried for the sake of memory."""
MOST_NEARER = 3
"""Cuts that are looked at between what answers alike and what the bounds ask for."""

Say = Callable[[str, str, float], None]


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
        base = self._packed(_base(looks, self._budget))
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
            making = Making(facts, studied, pricing.price(facts), base)
            proposing = Proposing(
                making, foresight, ratio=self._wanted.ratio, in_time=self._in_time
            )
            self._propose(making, proposing, foresight)
            self._recall()
            self._near(looks, making, proposing, foresight)
        except BadModel as error:
            self.problem = str(error)
            self._recall()
        return self._new

    def _packed(self, base: Preview | None) -> Preview | None:
        """The base, packed where a bound of size asks for less than it is: then less is cut."""
        most = self._wanted.size_bytes
        if base is None or most is None or base.size_bytes <= most:
            return base
        found = self._look(sparing.sparse(base.recipe, 0.0))
        return found if found.agreement and found.size_bytes < base.size_bytes else base

    def _recall(self) -> None:
        """Add what was cut for other budgets and is within these bounds: it may be the nearest."""
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

    def _propose(self, making: Making, proposing: Proposing, foresight: Foresight) -> None:
        """Look at what the search chooses, at even cuts, and again where a look is too slow."""
        size = float("inf")
        if self._wanted.size_bytes is not None:
            size = making.elements_for(SMALLER * self._wanted.size_bytes)
        tries = TARGETS if self._wanted.ratio is not None else TARGETS[:1]
        for share in tries:
            self._try(proposing.searched(share, size), foresight)
        if self._wanted.peak_mib is not None:
            size = self._lightened(making, proposing, foresight, size)
        for share in tries:
            self._try(proposing.even(share, size), foresight)
        for _ in range(MOST_AGAIN):  # it knows more by now: forecasts were too high or too low
            before = len(self._new)
            size = self._size(making, size)
            for share in tries:
                self._try(proposing.searched(share, size), foresight)
                self._try(proposing.even(share, size), foresight)
            if len(self._new) == before:
                break

    def _near(
        self, looks: list[Preview], making: Making, proposing: Proposing, foresight: Foresight
    ) -> None:
        """Where what keeps the bounds of time and size answers otherwise: look at gentler cuts.

        By halving; the last that is close enough is the nearest that a refusal may name.
        """
        for _ in range(MOST_NEARER):
            found = nearing.gap([*looks, *self._new], self._new, self._wanted, self._budget)
            if found is None:
                break
            size = self._size(making, float("inf"), times=found.middle)
            before = len(self._new)
            for propose in (proposing.searched, proposing.even):
                if len(self._new) == before:
                    self._try(propose(found.middle, size), foresight)
            if len(self._new) == before:
                break

    def _size(self, making: Making, size: float, *, times: float = 1.0) -> float:
        """How many constants may stay, now that files were made: they may be larger than thought.

        No more than `size` where memory asked for less; `times` the bound of size.
        """
        most = self._wanted.size_bytes and times * self._wanted.size_bytes
        made = [(one.recipe, one.size_bytes) for one in self._new if one.agreement]
        if most is None:
            return size
        found = making.elements_for(SMALLER * most, made)
        return found if self._wanted.peak_mib is None else min(size, found)

    def _lightened(
        self, making: Making, proposing: Proposing, foresight: Foresight, size: float
    ) -> float:
        """Cut more and more, until memory is within its bound; returns how many constants stay.

        What a model takes is about a constant and its weights and values, which go together: the
        next cut is as deep as a straight line through the last two looks says.
        """
        wanted, whole = self._wanted.peak_mib or 0.0, making.elements()
        points = [(1.0, peak) for peak in [making.peak_mib] if peak is not None]
        share = min(FIRST_SHARE, size / whole)
        for _ in range(MOST_LIGHTER):
            before = len(self._new)
            self._try(proposing.searched(TARGETS[0], share * whole), foresight)
            tried = [one for one in self._new[before:] if one.peak_mib is not None]
            if not tried or self._wanted.hold(tried[-1]):
                break
            points.append((share, tried[-1].peak_mib or 0.0))
            share = bounds.next_share(points, wanted)
        return share * whole

    def _try(self, proposal: Proposal | None, foresight: Foresight) -> None:
        if proposal is None or not self._in_time():
            return
        self._say("cutting", proposal.recipe.label, 0.5)
        found = self._look(proposal.recipe)
        if any(one.key == found.key for one in self._new):
            return
        self._new.append(found.model_copy(update={"predicted_ratio": proposal.predicted}))
        if found.agreement is not None and proposal.cost:
            foresight.learn(proposal.family, proposal.cost, found.cpu_ratio, cut=True)


def _base(looks: list[Preview], budget: Budget) -> Preview | None:
    """The nearest of the fastest looks in integers that are close enough; else the closest."""
    found = [one for one in looks if one.agreement and names(one.recipe) & set(INTEGERS)]
    plain = [one for one in found if sparing.PACKED not in names(one.recipe)]
    close = [one for one in plain if bounds.reached([one], Bounds(), budget)]
    quickest = min((one.cpu_ratio for one in close), default=0.0)
    fast = [one for one in close if one.cpu_ratio <= sparing.AS_FAST * quickest]
    return max(fast or plain, key=lambda one: one.sqnr_db, default=None)
