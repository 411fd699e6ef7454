"""Looks at candidates in rounds: by rules first, then by what the earlier looks showed.

A round costs seconds, not trials: each candidate is made and run beside the original on a few
choosing inputs. What comes out is a list of looks; the trials decide.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from compression import runtime, working
from compression.calibration.material import Material
from compression.choosing import front, preview, refining, search, sensitivities, sparing
from compression.choosing.preview import Preview
from compression.choosing.search import DYNAMIC, WEIGHTS
from compression.findings import Sensitivity
from compression.job import CompressJob, PassSpec, Recipe, Runtime
from compression.passes import quantization, rescaling, stored, unrolling

GOOD_DB = 35.0
"""Above this nobody looks for nodes to leave float."""
TARGETS_DB = (35.0, 40.0, 46.0)
"""How close stored weights alone should come, where 8 bits for all come less close."""
CULPRIT_DB = 40.0
FASTER = 0.02
"""An island of nodes is given back to float where that wins more than this share of the time."""
LEAST_GAIN_DB = 0.3
EXPLORING_SHARE = 0.5
"""Of the job's time; the rest is for trials."""
FIRST_LOOKS = 2
"""Candidates that are looked at however late it is: the cheapest ones come first."""
_NODES_SHARE = 0.3
_LEAST_STORED_BYTES = 4096

Say = Callable[[str, str, float], None]


class Exploring:
    """The looks of one job."""

    def __init__(
        self,
        job: CompressJob,
        material: Material,
        model: onnx.ModelProto,
        *,
        folder: Path,
        say: Say,
        ends: float,
    ) -> None:
        self.looks: list[Preview] = []
        self.nodes: tuple[Sensitivity, ...] = ()
        self.unseen: tuple[Recipe, ...] = ()
        """Candidates that there was no time to look at."""
        self._job = job
        self._material = material
        self._model = model
        self._folder = folder
        self._say = say
        self._stop = working.now_s() + EXPLORING_SHARE * (ends - working.now_s())
        how = runtime.options(Runtime(threads=material.threads))
        self._original = runtime.session(Path(job.model_path), how)

    def run(self) -> list[Preview]:
        """Look at all that is worth a look; empty where there is nothing to compress."""
        if self._job.recipes:  # a person said what to try, and in which order
            return [self._look(recipe) for recipe in self._job.recipes]
        candidates = search.candidates(self._facts(), self._job.device_class)
        for at, recipe in enumerate(candidates):
            if at >= FIRST_LOOKS and not self._in_time():
                self.unseen = candidates[at:]
                break
            self._look(recipe)
        if self._in_time():
            self._widened()
        first = self._best_static()
        if first is not None:
            best = self._given_back(first)
            if self._pays(best):
                best = self._finished(best)
                self._tightened([best, *self._mixed(best)])
        self._spared()
        return self.looks

    def _facts(self) -> search.Facts:
        """Count what can be quantized, and find what needs rewriting first."""
        ranges = self._material.calibrate(
            self._model, progress=lambda done: self._say("calibrating", "ranges", 0.1 + done / 5)
        )
        settings = quantization.Settings(operators=("*",))
        makers = {name: node.op_type for node in self._model.graph.node for name in node.output}
        counts = Counter(makers[name] for name in quantization.eligible(self._model, settings))
        recurrent = Counter(node.op_type for node in self._model.graph.node)["LSTM"]
        outlying = rescaling.outlying(self._model, ranges)
        sizes = stored.storable(self._model, stored.Settings())
        weighted = {kind: counts[kind] for kind in ("Conv", "Gemm", "MatMul")}
        return search.Facts(
            weighted={**weighted, "LSTM": recurrent},
            elementwise=sum(counts[kind] for kind in quantization.ELEMENTWISE),
            looked_up=counts["Gather"],
            outlying=outlying,
            unrollable=unrolling.possible(self._model, outlying),
            stored=sum(sizes.values()) >= _LEAST_STORED_BYTES,
        )

    def _look(self, recipe: Recipe) -> Preview:
        self._say("looking", recipe.label, 0.5 - 0.2 * 0.95 ** len(self.looks))
        found = preview.look(
            self._material, self._model, self._original, recipe, folder=self._folder
        )
        if all(one.key != found.key for one in self.looks):
            self.looks.append(found)
        return found

    def _in_time(self, runs: float = 0) -> bool:
        """Whether there is time left, behind so many runs of the original."""
        return working.now_s() + runs * self._material.once_s < self._stop

    def _best_static(self) -> Preview | None:
        """The static recipe to refine: among those nearly as close as the closest, the fastest."""
        found = [one for one in self.looks if refining.static(one.recipe) and one.agreement]
        if not found:
            return None
        closest = max(found, key=lambda one: one.sqnr_db)
        near = [
            one
            for one in found
            if one.sqnr_db >= closest.sqnr_db - 3.0
            or (one.sqnr_db >= GOOD_DB and _value(one) >= _value(closest))
        ]
        return min(near, key=lambda one: (one.cpu_ratio, -one.sqnr_db))

    def _given_back(self, first: Preview) -> Preview:
        """Leave those kinds of nodes float whose int8 kernels are slower here."""
        base, names = self._eligible(first.recipe)
        kinds = refining.islands(base, names)
        best, float_kinds = first, list[str]()
        for kind in kinds:
            if len(float_kinds) + 1 == len(kinds) or not self._in_time():
                break
            wanted = [*float_kinds, kind]
            members = [name for one in wanted for name in kinds[one]]
            why = f"but {', '.join(wanted)}"
            tried = self._look(refining.without(first.recipe, members, why))
            if tried.agreement and tried.cpu_ratio < best.cpu_ratio - FASTER:
                best, float_kinds = tried, wanted
        return best

    def _pays(self, best: Preview) -> bool:
        """Whether a static recipe is faster than float arithmetic from weights of the same size."""
        plain = [one for one in self.looks if one.recipe.label == WEIGHTS and one.agreement]
        return not plain or best.cpu_ratio < plain[0].cpu_ratio - FASTER

    def _finished(self, best: Preview) -> Preview:
        """Add the passes that bring the outputs closer, each only where it does."""
        saturates = self._job.device_class.int8_saturates
        layers = len(self._eligible(best.recipe)[1])
        for label, spec in refining.finishers(saturates=saturates):
            if not self._in_time(refining.runs(spec, layers=layers)):
                continue
            tried = self._look(refining.then(best.recipe, spec, label))
            gains = tried.sqnr_db >= best.sqnr_db + LEAST_GAIN_DB
            if tried.agreement and gains and _value(tried) >= _value(best):
                best = tried
        return best

    def _mixed(self, best: Preview) -> list[Preview]:
        """Leave the worst nodes float, where the best is not good yet."""
        spec = refining.static(best.recipe)
        if spec is None or best.sqnr_db >= GOOD_DB:
            return []
        base, names = self._eligible(best.recipe)
        figures = self._alone(base, best.recipe, spec, names)
        self.nodes = sensitivities.of(self._model, figures)
        recipes = refining.mixed(best.recipe, figures, floor_db=CULPRIT_DB)
        return [self._look(recipe) for recipe in recipes if self._in_time()]

    def _tightened(self, found: Sequence[Preview]) -> None:
        """Draw in the ranges of those that are not good yet and worth a trial, while it pays."""
        for first in front.split([one for one in found if one.agreement]).front:
            best = first
            for recipe in refining.tightened(first.recipe):
                if best.sqnr_db >= GOOD_DB or not self._in_time():
                    break
                tried = self._look(recipe)
                if tried.sqnr_db < best.sqnr_db + LEAST_GAIN_DB or _value(tried) < _value(best):
                    break
                best = tried

    def _widened(self) -> None:
        """Store in 16 bits those constants whose rounding is felt, as few as it takes."""
        labels = {WEIGHTS, DYNAMIC}
        firsts = [one for one in self.looks if one.recipe.label in labels and one.agreement]
        if not firsts or min(one.sqnr_db for one in firsts) >= TARGETS_DB[-1]:
            return
        spec = PassSpec(name="stored", parameters={"wide_share": 0.0})
        sizes = stored.storable(self._model, stored.Settings())
        figures = self._alone(self._model, search.ORIGINAL, spec, tuple(sizes))
        for target_db in TARGETS_DB:
            names = stored.felt(figures, sizes, target_db=target_db)
            for first in firsts:
                if names and target_db > first.sqnr_db and self._in_time():
                    self._look(refining.widened(first.recipe, names))

    def _spared(self) -> None:
        """Pack, and prune single weights, where a size is asked for that nothing else reaches."""
        size = Path(self._job.model_path).stat().st_size
        for recipe in sparing.packing(self.looks, self._job.budget, original_bytes=size):
            if self._in_time():
                self._look(recipe)
        for recipe in sparing.recipes(self.looks, self._job.budget, original_bytes=size):
            if self._in_time(sparing.RUNS):
                self._look(recipe)

    def _alone(
        self, model: onnx.ModelProto, recipe: Recipe, spec: PassSpec, names: Sequence[str]
    ) -> dict[str, float]:
        self._say("nodes", f"what each of {len(names)} costs alone, {spec.name}", 0.35)
        stop = working.now_s() + _NODES_SHARE * max(0.0, self._stop - working.now_s())
        return preview.alone(
            self._material, model, self._original, recipe, spec, names=names,
            folder=self._folder, stop=stop,
        )  # fmt: skip

    def _eligible(self, recipe: Recipe) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        """What the recipe's static pass finds, and the nodes that it quantizes there."""
        spec = refining.static(recipe)
        base = preview.behind(self._material, self._model, recipe)
        parameters = spec.parameters if spec else {}
        settings = quantization.Settings.model_validate(parameters)
        return base, quantization.eligible(base, settings)


def _value(one: Preview) -> float:
    return one.agreement.value if one.agreement else 0.0
