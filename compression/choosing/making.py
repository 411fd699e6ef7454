"""Recipes that cut: what the options of the search mean, all on one base (pure)."""

from collections.abc import Mapping, Sequence

import numpy as np

from compression.choosing import sparing
from compression.choosing.options import Facts, Priced
from compression.choosing.preview import Preview
from compression.choosing.search import STORED, WEIGHTS
from compression.choosing.studying import Studied
from compression.job import PassSpec, Recipe
from compression.latency import layers
from compression.latency.layers import INTEGERS
from compression.pruning import costs

FLOAT = "float"
"""The family of models that compute in float."""


class Making:
    """Recipes from options, all of one base."""

    def __init__(
        self,
        facts: Facts,
        studied: Studied,
        priced: Priced,
        base: Preview | None,
    ) -> None:
        self.studied = studied
        self.priced = priced
        self.family = base.key if base is not None else FLOAT
        self.peak_mib = base.peak_mib if base is not None else None
        self._facts = facts
        self._passes = base.recipe.passes if base is not None else (STORED,)
        self._label = base.recipe.label if base is not None else WEIGHTS
        self._counts = costs.Costs(studied.channels)
        self._in_integers = sum(kind for _, kind in facts.surfaces)
        self._bytes = None if base is None else base.size_bytes
        self._packed = tuple(spec for spec in self._passes if spec.name == sparing.PACKED)

    def recipe(self, options: tuple[int, ...]) -> Recipe | None:
        """The recipe of some options; None where nothing is cut."""
        widths = self.priced.widths(options)
        floats = [self._facts.layers[number].name for number in self.priced.floats(options)]
        return self._recipe(widths, floats, "") if widths else None

    def elements_for(self, size_bytes: float, made: Sequence[tuple[Recipe, int]] = ()) -> float:
        """How many constants a file of so many bytes may have.

        Each is a byte, and the rest stays; of a packed file all shrinks alike. Where cuts were
        `made`, with so many bytes each, a straight line through the whole and the likest of them
        says more.
        """
        every = self.elements()
        whole = every if self._bytes is None else float(self._bytes)
        points = [(self._left(recipe.passes[0].parameters["keep"]), size) for recipe, size in made]
        points = [(left, size) for left, size in points if left < every and size < whole]
        if points:
            left, size = min(points, key=lambda point: abs(point[1] - size_bytes))
            return max(0.0, left + (size_bytes - size) * (every - left) / (whole - size))
        if self._packed:
            return size_bytes * every / whole
        return max(0.0, size_bytes - max(0.0, whole - every))

    def elements(self) -> float:
        """How many constants the whole layers have."""
        return float(sum(self._facts.elements.values()))

    def whole(self) -> float:
        """What the kernels of the whole model cost at most, in references."""
        return max(self._facts.whole.values())

    def family_of(self, recipe: Recipe) -> str:
        """Which models it runs like: the base, or float ones."""
        return self.family if names(recipe) & set(INTEGERS) else FLOAT

    def even(self, share: float) -> tuple[Recipe | None, float]:
        """The recipe that leaves a share of every group, and how many constants that leaves."""
        widths = {}
        for group in self._facts.groups:
            width = min(group.steps, key=lambda step: abs(step - share * group.width))
            if group.losses and width < group.width:
                widths[group.id] = width
        return (self._recipe(widths, [], " evenly") if widths else None), self._left(widths)

    def _left(self, widths: Mapping[str, int]) -> float:
        """How many constants widths leave."""
        found = self.studied.channels
        return float(sum(layers.elements(found, one, widths) for one in self._facts.layers))

    def _recipe(self, widths: dict[str, int], floats: list[str], how: str) -> Recipe:
        """Cut to widths, then the base with some more nodes left float; `how` is for its label."""
        groups = self.studied.channels.groups
        kept = np.array([widths.get(group.id, group.width) for group in groups])
        left = self._counts.left(kept)
        cut = PassSpec(name="structured_pruning", parameters={"keep": widths})
        why = f", {len(floats)} {'node' if len(floats) == 1 else 'nodes'} float" if floats else ""
        passes = tuple(_left_out(spec, floats) for spec in self._passes)
        base = f"{self._label}{why}"
        if floats and len(floats) >= self._in_integers:  # all were given back to float
            passes = (STORED, *self._packed)
            base = f"{WEIGHTS}, packed" if self._packed else WEIGHTS
        label = f"pruned{how} to {left:.2f} of the products, {base}"
        return Recipe(label=label, passes=(cut, *passes))


def _left_out(spec: PassSpec, floats: list[str]) -> PassSpec:
    if spec.name not in INTEGERS or not floats:
        return spec
    exclude = list(dict.fromkeys([*spec.parameters.get("exclude", ()), *floats]))
    return PassSpec(name=spec.name, parameters={**spec.parameters, "exclude": exclude})


def names(recipe: Recipe) -> set[str]:
    """The passes of a recipe."""
    return {spec.name for spec in recipe.passes}
