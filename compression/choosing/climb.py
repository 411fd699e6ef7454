"""One compression job from the original to the ladder: calibrate, look, try, judge, order."""

import contextlib
import time
from collections import Counter
from pathlib import Path

import onnx

from compression import graph, ladder, report, runtime
from compression.calibration.material import Material
from compression.choosing import preview, search, sensitivities, verdict
from compression.choosing.shelf import Shelf
from compression.choosing.trials import Listener
from compression.choosing.trying import Trying
from compression.job import (
    CompressJob,
    Ladder,
    ModelRef,
    Recipe,
    Rejected,
    Runtime,
    Sensitivity,
)
from compression.passes import quantization, rescaling, unrolling
from compression.regular import quantized

COMPRESSED = Recipe(label="compressed")
"""Stands for every candidate of a model that cannot be compressed."""
NOTHING_TO_DO = "cannot compress: no Conv, Gemm or MatMul has constant float weights"
GOOD_DB = 35.0
"""Above this nobody looks for nodes to leave float."""
CULPRIT_DB = 40.0
_NODES_SHARE = 0.2


class Climb:
    """The job while it runs. What is judged lies in `out_dir/work`, so that a rerun reuses it."""

    def __init__(self, job: CompressJob, listener: Listener) -> None:
        self._job = job
        self._listener = listener
        self._shelf = Shelf(Path(job.out_dir))
        self._ends = time.monotonic() + job.minutes * 60
        self._fraction = 0.0
        self._nodes: tuple[Sensitivity, ...] = ()

    def run(self) -> Ladder:
        """Do the job and return its ladder, which then also lies in `out_dir`.

        Raises:
            BadModel, BadInputs: the original or the inputs cannot be used.
            CannotRun: the original does not run on this device.
        """
        self.progress("reading", "reading the model and its inputs", 0.0)
        whole = graph.single_file(Path(self._job.model_path), self._shelf.work / "original.onnx")
        self._job = self._job.model_copy(update={"model_path": str(whole)})
        material = Material.open(self._job, self._shelf.work)
        with contextlib.closing(material):
            self.progress("dividing", report.division(material.division), 0.02)
            sample = material.inputs.sample(0)
            model = graph.regular(
                Path(self._job.model_path), sample=sample, folder=self._shelf.work
            )
            trying = Trying(
                self._job, material, self._shelf, self._listener, say=self.progress, ends=self._ends
            )
            self.progress("baseline", "measuring the original", 0.05)
            trying.baseline()
            if quantized.is_quantized(model):
                looks, hopeless = [], quantized.reason(model)
            else:
                looks, hopeless = self._looks(material, model, trying), NOTHING_TO_DO
            del model
            if not looks:
                trying.reject(Rejected(recipe=COMPRESSED, reason=hopeless))
            trying.run(looks)
        found = ladder.build(
            model=ModelRef(name=self._job.model_name, sha256=material.model_sha256),
            device_class=self._job.device_class,
            budget=trying.budget,
            rungs=trying.rungs,
            rejected=trying.rejected,
            division=material.division,
            sensitivities=sensitivities.with_rungs(self._nodes, trying.rungs),
        )
        self._shelf.close(found)
        return found

    def progress(self, stage: str, message: str, fraction: float) -> None:
        """Tell what is being done; the fraction never goes back."""
        self._fraction = max(self._fraction, fraction)
        self._listener.progress(stage, message, self._fraction)

    def _looks(
        self, material: Material, model: onnx.ModelProto, trying: Trying
    ) -> list[preview.Preview]:
        """Look at all candidates; the most promising first, after those without hope."""
        ranges = material.calibrate(
            model,
            progress=lambda done: self.progress("calibrating", "ranges", 0.1 + done / 5),
        )
        everything = quantization.eligible(model, quantization.Settings(operators=("*",)))
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        counts = Counter(makers[name] for name in everything)
        outlying = rescaling.outlying(model, ranges)
        facts = search.Facts(
            weighted={kind: counts[kind] for kind in ("Conv", "Gemm", "MatMul")},
            elementwise=sum(counts[kind] for kind in quantization.ELEMENTWISE),
            looked_up=counts["Gather"],
            outlying=outlying,
            unrollable=unrolling.possible(model, outlying),
        )
        how = runtime.options(Runtime(threads=material.threads))
        original = runtime.session(Path(self._job.model_path), how)

        def look(recipe: Recipe) -> preview.Preview:
            self.progress("looking", recipe.label, 0.35)
            return preview.look(material, model, original, recipe, folder=self._shelf.work)

        if self._job.recipes:  # a person said what to try, and in which order
            return [look(recipe) for recipe in self._job.recipes]
        looks = [look(recipe) for recipe in search.candidates(facts, self._job.device_class)]
        static = [one for one in looks if one.recipe.passes[-1].name == "quantization"]
        best = max(static, key=lambda one: one.sqnr_db, default=None)
        if best is not None and best.sqnr_db < GOOD_DB and len(everything) > 1:
            self.progress("nodes", "finding the worst nodes", 0.4)
            stop = time.monotonic() + _NODES_SHARE * (self._ends - time.monotonic())
            alone = preview.single_node_sqnr(material, model, original, best.recipe, stop=stop)
            self._nodes = sensitivities.of(model, alone)
            looks += [look(one) for one in search.mixed(best.recipe, alone, floor_db=CULPRIT_DB)]
        return sorted(
            looks,
            key=lambda one: verdict.promise(one, trying.budget, size_mib=trying.size_mib),
        )
