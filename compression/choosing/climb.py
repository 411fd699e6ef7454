"""One compression job from the original to the ladder: calibrate, look, try, judge, order."""

import contextlib
from pathlib import Path

import onnx

from compression import graph, ladder, pipeline, report, runtime, working
from compression.calibration.material import Material
from compression.choosing import bounds, preview, sensitivities
from compression.choosing.cutting import PRUNED, Cutting
from compression.choosing.exploring import Exploring
from compression.choosing.recovering import Ground, Recovering
from compression.choosing.search import ORIGINAL
from compression.choosing.shelf import Shelf
from compression.choosing.trials import Listener
from compression.choosing.trying import Trying
from compression.choosing.weighing import Scales
from compression.findings import Ladder, ModelRef, Rejected, Sensitivity
from compression.job import CompressJob, Recipe, Runtime
from compression.latency import asking
from compression.latency.table import Table
from compression.regular import quantized
from compression.workplace import Workplace

COMPRESSED = Recipe(label="compressed")
"""Stands for every candidate of a model that cannot be compressed."""
CUTTING_SHARE = 0.6
"""Of the time that is left, for cuts where a budget asks for them; the rest is for trials."""
WEIGHING_SHARE = 0.7
"""Of the time that is left, until which looks are still weighed."""
NOTHING_TO_DO = "cannot compress: it has no float weights"


class Climb:
    """The job while it runs. What is judged lies in `out_dir/work`, so that a rerun reuses it."""

    def __init__(self, job: CompressJob, listener: Listener) -> None:
        self._job = job
        self._listener = listener
        self._shelf = Shelf(Path(job.out_dir))
        self._ends = working.now_s() + job.minutes * 60
        self._fraction = 0.0
        self._nodes: tuple[Sensitivity, ...] = ()
        self._unseen: tuple[Recipe, ...] = ()

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
            once_s = trying.rungs[0].measurement.original_latency_p50_ms / 1000
            material.pace(once_s=once_s, within_s=self._job.minutes * 60)
            recovering = self._trainer(material, model)
            scales = self._scales(material, model, trying)
            if quantized.is_quantized(model):
                looks, hopeless = [], quantized.reason(model)
            else:
                looks, hopeless = scales.all(self._explore(material, model)), NOTHING_TO_DO
                looks = [*looks, *self._cut(material, model, looks, trying, scales)]
            if not looks:
                trying.reject(Rejected(recipe=COMPRESSED, reason=hopeless))
            looks = scales.formed(scales.all(self._recover(recovering, looks, trying)))
            trying.run(looks, make=lambda one: preview.make(material, model, one))
            trying.unseen(self._unseen)
        found = ladder.build(
            model=ModelRef(name=self._job.model_name, sha256=material.model_sha256),
            device_class=self._job.device_class,
            budget=trying.budget,
            rungs=trying.rungs,
            rejected=trying.rejected,
            division=material.division,
            sensitivities=sensitivities.with_rungs(self._nodes, trying.rungs),
            recovered=recovering.recovered,
        )
        self._shelf.close(found, keep=self._job.keep)
        return found

    def _cut(
        self,
        material: Material,
        model: onnx.ModelProto,
        looks: list[preview.Preview],
        trying: Trying,
        scales: Scales,
    ) -> list[preview.Preview]:
        """Look at cuts too, where the budget asks for what no look reaches."""
        device = self._job.device_class
        original = trying.rungs[0].measurement
        wanted = bounds.of(self._job.budget, original, cores=device.cores)
        if not looks or self._job.recipes or wanted == bounds.Bounds():
            return []
        how = Runtime(threads=material.threads)
        stop = working.now_s() + CUTTING_SHARE * (self._ends - working.now_s())
        work = self._shelf.work
        measure = asking.asker(self._listener.kernels, folder=work, how=how, stop=stop)
        session = runtime.session(Path(self._job.model_path), runtime.options(how))
        kept = Path(self._job.table_dir) if self._job.table_dir else work
        cutting = Cutting(
            material, model, Table(kept, device, how, measure=measure),
            look=lambda one: scales.one(preview.look(material, model, session, one, folder=work)),
            budget=trying.budget, wanted=wanted, folder=work, say=self.progress, stop=stop,
            earlier=preview.earlier(material, folder=work),
        )  # fmt: skip
        found = cutting.run(looks)
        if cutting.problem:
            trying.reject(Rejected(recipe=PRUNED, reason=cutting.problem))
        return found

    def _trainer(self, material: Material, model: onnx.ModelProto) -> Recovering:
        """What trains, and where; recipes that a person gave may train before anything else."""
        ground = Ground(
            material, model, Path(self._job.model_path), self._shelf.work, self.progress
        )
        recovering = Recovering(ground, minutes=self._job.recover_minutes)
        folder = self._shelf.work / f"training-{pipeline.key(ORIGINAL, *material.keys)[:12]}"
        material.workplace = Workplace(folder, recovering.report, material.outputs)
        return recovering

    def _recover(
        self, recovering: Recovering, looks: list[preview.Preview], trying: Trying
    ) -> list[preview.Preview]:
        """Train what may gain by it, in time of its own."""
        began_s = working.now_s()
        original = trying.rungs[0].measurement
        wanted = bounds.of(self._job.budget, original, cores=self._job.device_class.cores)
        found = recovering.run(looks, trying.budget, wanted)
        for rejected in recovering.rejected:
            trying.reject(rejected)
        trying.later(min(working.now_s() - began_s, 60 * self._job.recover_minutes))
        return found

    def _scales(self, material: Material, model: onnx.ModelProto, trying: Trying) -> Scales:
        """What sees to memory, where the budget bounds it."""
        original = trying.rungs[0].measurement
        return Scales(
            ask=self._listener.memory,
            make=lambda one: preview.make(material, model, one),
            keys=material.keys,
            inputs_path=material.inputs_path,
            inputs=self._job.inputs,
            wanted=bounds.Bounds()
            if self._job.recipes  # a person said what to try
            else bounds.of(self._job.budget, original, cores=self._job.device_class.cores),
            threads=material.threads,
            folder=self._shelf.work,
            stop=working.now_s() + WEIGHING_SHARE * (self._ends - working.now_s()),
        )

    def progress(self, stage: str, message: str, fraction: float) -> None:
        """Tell what is being done; the fraction never goes back."""
        self._fraction = max(self._fraction, fraction)
        self._listener.progress(stage, message, self._fraction)

    def _explore(self, material: Material, model: onnx.ModelProto) -> list[preview.Preview]:
        """Look at all candidates that are worth it."""
        exploring = Exploring(
            self._job, material, model,
            folder=self._shelf.work, say=self.progress, ends=self._ends,
        )  # fmt: skip
        looks = exploring.run()
        self._nodes, self._unseen = exploring.nodes, exploring.unseen
        return looks
