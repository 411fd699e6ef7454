"""One compression job from the original to the ladder: calibrate, look, try, judge, order."""

import contextlib
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

import onnx

from compression import graph, ladder, pipeline, preview, quantized, runtime, search, verdict
from compression.errors import CannotRun
from compression.job import (
    CompressJob,
    Ladder,
    Measurement,
    ModelRef,
    Recipe,
    Rejected,
    Rung,
    Runtime,
    TrialAnswer,
    TrialJob,
)
from compression.material import Material
from compression.passes import quantization, rescaling, unrolling
from compression.shelf import Shelf

ORIGINAL = Recipe(label="original")
COMPRESSED = Recipe(label="compressed")
"""Stands for every candidate of a model that cannot be compressed."""
NOTHING_TO_DO = "cannot compress: no Conv, Gemm or MatMul has constant float weights"
ROUNDS = 24
GOOD_DB = 35.0
"""Above this nobody looks for nodes to leave float."""
CULPRIT_DB = 40.0
_NODES_SHARE = 0.2
_BASELINE_SECONDS = 5.0


class Listener(Protocol):
    """Who hears of the work and runs the trials."""

    def progress(self, stage: str, message: str, fraction: float) -> None:
        """Hear what is being done; `fraction` is of the whole job."""

    def tried(self, found: Rung | Rejected) -> None:
        """Hear what became of one candidate."""

    def trial(self, job: TrialJob) -> TrialAnswer:
        """Run a trial."""


class Climb:
    """The job while it runs. What is judged lies in `out_dir/work`, so that a rerun reuses it."""

    def __init__(self, job: CompressJob, listener: Listener) -> None:
        self._job = job
        self._listener = listener
        self._shelf = Shelf(Path(job.out_dir))
        self._ends = time.monotonic() + job.minutes * 60
        self._runtime = Runtime(threads=job.budget.threads or 1)
        self._trial_seconds = _BASELINE_SECONDS
        self._fraction = 0.0
        self._rungs: list[Rung] = []
        self._rejected: list[Rejected] = []

    def run(self) -> Ladder:
        """Do the job and return its ladder, which then also lies in `out_dir`.

        Raises:
            BadModel, BadInputs: the original or the inputs cannot be used.
            CannotRun: the original does not run on this device.
        """
        self._say("reading", "reading the model and its inputs", 0.0)
        whole = graph.single_file(Path(self._job.model_path), self._shelf.work / "original.onnx")
        self._job = self._job.model_copy(update={"model_path": str(whole)})
        material = Material.open(self._job, self._shelf.work)
        with contextlib.closing(material):
            sample = material.inputs.sample(0)
            model = graph.regular(
                Path(self._job.model_path), sample=sample, folder=self._shelf.work
            )
            self._baseline(material)
            if quantized.is_quantized(model):
                looks, hopeless = [], quantized.reason(model)
            else:
                looks, hopeless = self._looks(material, model), NOTHING_TO_DO
            del model
            if not looks:
                self._reject(Rejected(recipe=COMPRESSED, reason=hopeless))
            for done, look in enumerate(looks):
                at = 0.5 + 0.5 * done / len(looks)
                self._say("trying", look.recipe.label, at)
                self._try(material, look)
        found = ladder.build(
            model=ModelRef(name=self._job.model_name, sha256=material.model_sha256),
            device_class=self._job.device_class,
            budget=self._job.budget,
            rungs=self._rungs,
            rejected=self._rejected,
        )
        self._shelf.close(found)
        return found

    def _say(self, stage: str, message: str, fraction: float) -> None:
        """Tell what is being done; the fraction never goes back."""
        self._fraction = max(self._fraction, fraction)
        self._listener.progress(stage, message, self._fraction)

    def _baseline(self, material: Material) -> None:
        """Measure the original against itself: its memory, its noise, its place on the ladder."""
        self._say("baseline", "measuring the original", 0.05)
        key = pipeline.key(ORIGINAL, *material.keys)
        if not self._known(key):
            file = self._shelf.copy(key, Path(self._job.model_path))
            answer = self._listener.trial(self._trial(material, file, key))
            if answer.measurement is None:
                why = answer.failed.message if answer.failed else "no answer"
                raise CannotRun(f"cannot measure the original: {why}")
            self._rung(material, ORIGINAL, file, key, answer.measurement)
        once_ms = self._rungs[0].measurement.original_latency_p50_ms
        runs = 2 * len(material.report) + 3 * ROUNDS + 20
        # Twice what it should take, plus the loads: a deadline is for what goes wrong.
        self._trial_seconds = min(60.0, max(3.0, 2 * runs * once_ms / 1000 + 1.0))

    def _looks(self, material: Material, model: onnx.ModelProto) -> list[preview.Preview]:
        """Look at all candidates; the most promising first, after those without hope."""
        ranges = material.calibrate(
            model, lambda done: self._say("calibrating", "ranges", 0.1 + done / 5)
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
        original = runtime.session(Path(self._job.model_path), runtime.options(self._runtime))

        def look(recipe: Recipe) -> preview.Preview:
            self._say("looking", recipe.label, 0.35)
            return preview.look(material, model, original, recipe, folder=self._shelf.work)

        looks = [look(recipe) for recipe in search.candidates(facts, self._job.device_class)]
        static = [one for one in looks if one.recipe.passes[-1].name == "quantization"]
        best = max(static, key=lambda one: one.sqnr_db, default=None)
        if best is not None and best.sqnr_db < GOOD_DB and len(everything) > 1:
            self._say("nodes", "finding the worst nodes", 0.4)
            stop = time.monotonic() + _NODES_SHARE * (self._ends - time.monotonic())
            alone = preview.single_node_sqnr(material, model, original, best.recipe, stop=stop)
            looks += [look(one) for one in search.mixed(best.recipe, alone, floor_db=CULPRIT_DB)]
        return sorted(looks, key=lambda one: verdict.promise(one, self._job.budget, self._rungs[0]))

    def _try(self, material: Material, look: preview.Preview) -> None:
        """Judge one candidate: by what is known, by its look, or by a trial."""
        if self._known(look.key):
            return
        reason = verdict.before(look, self._job.budget, self._rungs, cores=self._cores)
        if reason is None and time.monotonic() + self._trial_seconds > self._ends:
            reason = f"not tried: the {self._job.minutes:g} minutes of the job are over"
        if reason is not None:
            # Not remembered: a longer job, or one with another budget, may try it.
            self._reject(Rejected(recipe=look.recipe, reason=reason))
            return
        answer = self._listener.trial(self._trial(material, look.path, look.key))
        if answer.measurement is None:
            why = answer.failed.message if answer.failed else "the trial gave no answer"
            self._reject(Rejected(recipe=look.recipe, reason=why))
            return
        reason = verdict.after(answer.measurement, self._job.budget)
        if reason is None:
            self._rung(material, look.recipe, look.path, look.key, answer.measurement)
        else:
            measured = _guess_marked(material, answer.measurement)
            self._reject(Rejected(recipe=look.recipe, reason=reason, measurement=measured))

    @property
    def _cores(self) -> int:
        return self._job.device_class.cores

    def _trial(self, material: Material, file: Path, key: str) -> TrialJob:
        return TrialJob(
            candidate_path=str(file),
            original_path=self._job.model_path,
            inputs_path=str(material.inputs_path),
            sample_indices=material.report,
            split=material.split,
            outputs=material.outputs,
            runtime=self._runtime,
            rounds=ROUNDS,
            seconds=self._trial_seconds,
            probe_path=str(self._shelf.probe(key)),
        )

    def _rung(
        self, material: Material, recipe: Recipe, file: Path, key: str, found: Measurement
    ) -> None:
        rung = self._shelf.put(
            key,
            file,
            recipe=recipe,
            runtime=self._runtime,
            measurement=_guess_marked(material, found),
            verified=material.verified,
        )
        self._add(rung)

    def _add(self, rung: Rung) -> None:
        judged = ladder.judged(rung, self._job.budget, cores=self._cores)
        self._rungs.append(judged)
        self._listener.tried(judged)

    def _reject(self, rejected: Rejected) -> None:
        self._rejected.append(rejected)
        self._listener.tried(rejected)

    def _known(self, key: str) -> bool:
        """Whether an earlier run made this rung and it is still whole; then it is added."""
        rung = self._shelf.get(key)
        if rung is not None:
            self._add(rung)
        return rung is not None


def _guess_marked(material: Material, found: Measurement) -> Measurement:
    guessed = found.agreement.output in material.guessed
    agreement = found.agreement.model_copy(update={"guessed": guessed})
    return found.model_copy(update={"agreement": agreement})
