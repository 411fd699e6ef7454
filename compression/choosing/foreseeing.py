"""Forecasts for recipes that cut, by the kernels of a model that is cut and not repaired."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from compression import pipeline
from compression.calibration.material import Material
from compression.choosing.studying import Studied
from compression.errors import BadModel
from compression.job import Recipe, Runtime
from compression.latency import forecasting, kernels
from compression.latency.forecasting import Whole
from compression.latency.layers import INTEGERS
from compression.latency.table import Table
from compression.pruning import surgery
from compression.statistics import Range

_REWRITING = frozenset({"rescaling", "unrolling"})
"""Behind these, tensors have other names, whose ranges have to be seen."""


class Foresight:
    """What variants of one model cost, and what that says of their time."""

    def __init__(
        self,
        material: Material,
        model: onnx.ModelProto,
        studied: Studied,
        table: Table,
        *,
        folder: Path,
        how: Runtime,
    ) -> None:
        self._material = material
        self._model = model
        self._studied = studied
        self._table = table
        self._folder = folder
        self._how = how
        self._known: list[Whole] = []

    def learn(self, family: str, cost: float, ratio: float, *, cut: bool = False) -> None:
        """Take a look at a model of a family into account.

        Those that are cut miss their forecasts by the same more or less, which whole ones do not.
        """
        self._known.append(Whole(_cut(family) if cut else family, cost, ratio))

    def ratio(self, cost: float, family: str) -> float:
        """The share of the original's time that a cost makes, of a model that is cut."""
        return forecasting.ratio(cost, self._likest(family), self._known)

    def cost_for(self, ratio: float, family: str) -> float:
        """What kernels may cost for a share of the original's time."""
        return forecasting.cost_for(ratio, self._likest(family), self._known)

    def _likest(self, family: str) -> str:
        return _cut(family) if any(one.family == _cut(family) for one in self._known) else family

    def cost(self, model: onnx.ModelProto) -> float | None:
        """What a model's kernels cost together; None where there was no time to see.

        Raises:
            BadModel: it does not load or run.
        """
        sample = self._studied.sample
        found = kernels.of(model, sample, folder=self._folder, how=self._how)
        return self._table.cost(found)

    def of_recipe(self, recipe: Recipe) -> float | None:
        """What the kernels of a recipe that cuts first cost; None where that cannot be told."""
        rewritten = any(spec.name in _REWRITING for spec in recipe.passes)
        widths: Mapping[str, int] = recipe.passes[0].parameters.get("keep", {})
        keep = {name: range(width) for name, width in widths.items()}
        model = surgery.cut(self._model, self._studied.channels, keep)
        seen = self._material.calibrate(self._model)

        def ranges(
            model: onnx.ModelProto, *, least_error: tuple[str, ...] = ()
        ) -> dict[str, Range]:
            del least_error  # names of tensors stay, and where ranges end decides no kernel
            return self._material.calibrate(model) if rewritten else seen

        try:
            for spec in recipe.passes[1:]:
                if spec.name in INTEGERS or spec.name in _REWRITING:
                    alone = Recipe(label=spec.name, passes=(spec,))
                    model = pipeline.run(alone, model, calibrate=ranges)
            return self.cost(model)
        except BadModel:  # the look will say why
            return None


def _cut(family: str) -> str:
    return f"{family}, cut"
