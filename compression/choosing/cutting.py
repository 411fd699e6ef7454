"""Where nothing reaches a budget: widths and precisions chosen by what they cost here, looked at.

Int8 comes first. What it cannot reach, cut channels may: those whose loss is least for the time
and the size that they save on this device. Proposals are made and looked at like any candidate.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from compression import pipeline
from compression.calibration.material import Material
from compression.choosing import allocation, bounds, preview, pricing, studying
from compression.choosing.bounds import Bounds
from compression.choosing.preview import Preview
from compression.choosing.search import STORED, WEIGHTS
from compression.errors import BadModel
from compression.job import Budget, PassSpec, Recipe, Runtime
from compression.latency import forecasting, kernels, layers
from compression.latency.forecasting import Whole
from compression.latency.layers import INTEGERS
from compression.latency.table import Table
from compression.pruning import costs, surgery
from compression.regular import reading
from compression.statistics import Range

PRUNED = Recipe(label="pruned")
"""Stands for all cuts of a model that cannot be cut."""
TARGETS = (0.97, 0.88)
"""Of the bound of time: a forecast that is a little wrong shall not miss all."""
TIGHTER = 0.98
MOST_TRIES = 4
"""How often the search is asked again where its answer costs more than it thought."""
UNIFORM = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2)
SPARSE = "unstructured_pruning"
_FLOAT = "float"
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
        self._how = Runtime(threads=material.threads)
        self._known: list[Whole] = []
        self._new: list[Preview] = []

    def run(self, looks: list[Preview]) -> list[Preview]:
        """Return further looks; none where some look reaches the budget, or nothing can be cut."""
        # Single weights that are cut buy size alone, and may lose more than whole channels.
        looks = [one for one in looks if SPARSE not in _names(one.recipe)]
        if self._wanted == Bounds() or bounds.reached(looks, self._wanted, self._budget):
            return []
        self._say("cutting", "what each group of channels costs and loses", 0.5)
        base = _base(looks, self._budget)
        try:
            studied = studying.study(self._model, self._material.evidence)
            whole = self._measured(looks, base, studied)
            if whole is None:
                self.problem = "not tried: there was no time to see what layers cost here"
                return []
            loss = 0.0 if base is None else float(10 ** (-base.sqnr_db / 10))
            facts = studying.facts(
                self._model, studied, self._table,
                passes=base.recipe.passes if base else (), whole=whole, rounding_loss=loss,
                folder=self._folder, how=self._how, stop=lambda: not self._in_time(),
            )  # fmt: skip
            self._propose(pricing.price(facts), facts, studied, base)
        except BadModel as error:
            self.problem = str(error)
        return self._new

    def _in_time(self) -> bool:
        return time.monotonic() < self._stop

    def _measured(
        self, looks: list[Preview], base: Preview | None, studied: studying.Studied
    ) -> dict[bool, float] | None:
        """What the whole model's kernels cost, in float and as the best look runs it."""
        ratios = {one.recipe.label: one.cpu_ratio for one in looks if one.agreement}
        ratio = ratios.get("simplified", ratios.get(WEIGHTS, 1.0))
        costs_ = {False: self._cost(self._model, studied)}
        if base is not None:
            if not base.path.exists():
                preview.make(self._material, self._model, base)
            costs_[True] = self._cost(reading.load(base.path), studied)
        whole = {kind: cost for kind, cost in costs_.items() if cost}
        if False not in whole:
            return None
        self._known.append(Whole(_FLOAT, whole[False], ratio))
        if base is not None and True in whole:
            self._known.append(Whole(base.key, whole[True], base.cpu_ratio))
        return whole

    def _cost(self, model: onnx.ModelProto, studied: studying.Studied) -> float | None:
        found = kernels.of(model, studied.sample, folder=self._folder, how=self._how)
        return self._table.cost(found)

    def _propose(
        self,
        priced: pricing.Priced,
        facts: pricing.Facts,
        studied: studying.Studied,
        base: Preview | None,
    ) -> None:
        """Look at what the search chooses, at even cuts, and again where a look is too slow."""
        making = _Making(facts, studied, priced, base)
        size = self._most_elements(facts, base)
        tries = TARGETS if self._wanted.ratio is not None else TARGETS[:1]
        for share in tries:
            self._try(self._searched(making, share, size))
        self._try(self._even(making, size))
        ours = [one for one in self._new if one.agreement]
        if ours and not any(self._wanted.hold(one) for one in ours):
            self._try(self._searched(making, TARGETS[-1], size))  # it knows more by now

    def _searched(self, making: "_Making", share: float, size: float) -> Proposal | None:
        """What loses least within a share of the bound, by what its own kernels cost."""
        family = making.family
        target = _UNBOUNDED if self._wanted.ratio is None else share * self._wanted.ratio
        bound = forecasting.cost_for(target, family, self._known)
        for _ in range(MOST_TRIES):
            found = allocation.cheapest(making.priced.problem, time=bound, size=size)
            if found is None or not self._in_time():
                return None
            recipe = making.recipe(found.options)
            if recipe is None:
                return None
            family = making.family_of(recipe)
            cost = self._skeleton(recipe, making)
            if cost is None:
                return Proposal(recipe, family)
            predicted = forecasting.ratio(cost, family, self._known)
            if predicted <= target:
                return Proposal(recipe, family, cost, predicted)
            bound *= TIGHTER * target / predicted
        return None

    def _even(self, making: "_Making", size: float) -> Proposal | None:
        """The same share of every group, as much as the bounds allow."""
        for share in UNIFORM:
            recipe, elements = making.even(share)
            if recipe is None or elements > size or not self._in_time():
                continue
            cost = self._skeleton(recipe, making)
            if cost is None:
                return None
            predicted = forecasting.ratio(cost, making.family, self._known)
            if self._wanted.ratio is None or predicted <= TARGETS[0] * self._wanted.ratio:
                return Proposal(recipe, making.family, cost, predicted)
        return None

    def _try(self, proposal: Proposal | None) -> None:
        if proposal is None or not self._in_time():
            return
        self._say("cutting", proposal.recipe.label, 0.5)
        found = self._look(proposal.recipe)
        if any(one.key == found.key for one in self._new):
            return
        self._new.append(found.model_copy(update={"predicted_ratio": proposal.predicted}))
        if found.agreement is not None and proposal.cost:
            self._known.append(Whole(proposal.family, proposal.cost, found.cpu_ratio))

    def _skeleton(self, recipe: Recipe, making: "_Making") -> float | None:
        """What the kernels of a recipe cost, by a model that was cut and not repaired."""
        passes = tuple(spec for spec in recipe.passes if spec.name in INTEGERS)
        if any(spec.name in ("rescaling", "unrolling") for spec in recipe.passes):
            return None
        widths: Mapping[str, int] = recipe.passes[0].parameters.get("keep", {})
        keep = {name: range(width) for name, width in widths.items()}
        model = surgery.cut(self._model, making.studied.channels, keep)
        ranges = self._material.calibrate(self._model)

        def known(model: onnx.ModelProto, *, least_error: tuple[str, ...] = ()) -> dict[str, Range]:
            del model, least_error  # names of tensors stay, and ranges decide no kernel
            return ranges

        for spec in passes:
            model = pipeline.run(Recipe(label="", passes=(spec,)), model, calibrate=known)
        return self._cost(model, making.studied)

    def _most_elements(self, facts: pricing.Facts, base: Preview | None) -> float:
        """How many constants may be left, a byte each: the rest of a file stays."""
        if self._wanted.size_bytes is None:
            return float("inf")
        every = sum(facts.elements.values())
        smallest = base.size_bytes if base is not None else every
        return max(0.0, 0.97 * self._wanted.size_bytes - max(0, smallest - every))


class _Making:
    """Recipes from options, all of one base."""

    def __init__(
        self,
        facts: pricing.Facts,
        studied: studying.Studied,
        priced: pricing.Priced,
        base: Preview | None,
    ) -> None:
        self.studied = studied
        self.priced = priced
        self.family = base.key if base is not None else _FLOAT
        self._facts = facts
        self._passes = base.recipe.passes if base is not None else (STORED,)
        self._label = base.recipe.label if base is not None else WEIGHTS
        self._counts = costs.Costs(studied.channels)
        self._in_integers = sum(kind for _, kind in facts.surfaces)

    def recipe(self, options: tuple[int, ...]) -> Recipe | None:
        """The recipe of some options; None where nothing is cut."""
        widths = self.priced.widths(options)
        names = [self._facts.layers[number].name for number in self.priced.floats(options)]
        return self._recipe(widths, names, "") if widths else None

    def family_of(self, recipe: Recipe) -> str:
        """Which models it runs like: the base, or float ones."""
        return self.family if _names(recipe) & set(INTEGERS) else _FLOAT

    def even(self, share: float) -> tuple[Recipe | None, float]:
        """The recipe that leaves a share of every group, and how many constants that leaves."""
        widths = {}
        for group in self._facts.groups:
            width = min(group.steps, key=lambda step: abs(step - share * group.width))
            if group.losses and width < group.width:
                widths[group.id] = width
        found = self.studied.channels
        left = sum(layers.elements(found, one, widths) for one in self._facts.layers)
        return (self._recipe(widths, [], " evenly") if widths else None), float(left)

    def _recipe(self, widths: dict[str, int], names: list[str], how: str) -> Recipe:
        groups = self.studied.channels.groups
        kept = np.array([widths.get(group.id, group.width) for group in groups])
        left = self._counts.left(kept)
        cut = PassSpec(name="structured_pruning", parameters={"keep": widths})
        why = f", {len(names)} {'node' if len(names) == 1 else 'nodes'} float" if names else ""
        passes = tuple(_left_out(spec, names) for spec in self._passes)
        base = f"{self._label}{why}"
        if names and len(names) >= self._in_integers:  # all were given back to float
            passes, base = (STORED,), WEIGHTS
        label = f"pruned{how} to {left:.2f} of the products, {base}"
        return Recipe(label=label, passes=(cut, *passes))


def _left_out(spec: PassSpec, names: list[str]) -> PassSpec:
    if spec.name not in INTEGERS or not names:
        return spec
    exclude = list(dict.fromkeys([*spec.parameters.get("exclude", ()), *names]))
    return PassSpec(name=spec.name, parameters={**spec.parameters, "exclude": exclude})


def _names(recipe: Recipe) -> set[str]:
    return {spec.name for spec in recipe.passes}


def _base(looks: list[Preview], budget: Budget) -> Preview | None:
    """The fastest look in integers that is close enough; where none is, the closest."""
    found = [one for one in looks if one.agreement and _names(one.recipe) & set(INTEGERS)]
    close = [one for one in found if bounds.reached([one], Bounds(), budget)]
    if close:
        return min(close, key=lambda one: (one.cpu_ratio, -one.sqnr_db))
    return max(found, key=lambda one: one.sqnr_db, default=None)
