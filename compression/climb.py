"""One compression job from the original to the ladder: calibrate, look, try, judge, order."""

import contextlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Protocol

import onnx
from pydantic import ValidationError

from compression import graph, ladder, pipeline, preview, runtime, search, verdict
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
    Tried,
)
from compression.material import Material, sha256
from compression.passes import quantization, rescaling

ORIGINAL = Recipe(label="original")
ROUNDS = 30
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
        self._out = Path(job.out_dir)
        self._work = self._out / "work"
        self._ends = time.monotonic() + job.minutes * 60
        self._runtime = Runtime(threads=job.budget.threads or 1)
        self._trial_seconds = _BASELINE_SECONDS
        self._rungs: list[Rung] = []
        self._rejected: list[Rejected] = []

    def run(self) -> Ladder:
        """Do the job and return its ladder, which then also lies in `out_dir`.

        Raises:
            BadModel, BadInputs: the original or the inputs cannot be used.
            CannotRun: the original does not run on this device.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        self._listener.progress("reading", "reading the model and its inputs", 0.0)
        material = Material.open(self._job, self._work)
        with contextlib.closing(material):
            sample = material.inputs.sample(0)
            model = graph.regular(Path(self._job.model_path), sample=sample)
            self._baseline(material)
            looks = self._looks(material, model)
            del model
            for done, look in enumerate(looks):
                at = 0.5 + 0.5 * done / len(looks)
                self._listener.progress("trying", look.recipe.label, at)
                self._try(material, look)
        found = ladder.build(
            model=ModelRef(name=self._job.model_name, sha256=material.model_sha256),
            device_class=self._job.device_class,
            budget=self._job.budget,
            rungs=self._rungs,
            rejected=self._rejected,
        )
        ladder.save(found, self._out)
        self._sweep(found)
        return found

    def _baseline(self, material: Material) -> None:
        """Measure the original against itself: its memory, its noise, its place on the ladder."""
        self._listener.progress("baseline", "measuring the original", 0.05)
        key = pipeline.key(ORIGINAL, *material.keys)
        if not self._known(key):
            file = self._work / f"candidate-{key[:12]}.onnx"
            _copy(Path(self._job.model_path), file)
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
            model, lambda done: self._listener.progress("calibrating", "ranges", 0.1 + done / 5)
        )
        everything = quantization.eligible(model, quantization.Settings(operators=("*",)))
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        counts = Counter(makers[name] for name in everything)
        facts = search.Facts(
            weighted={kind: counts[kind] for kind in ("Conv", "Gemm", "MatMul")},
            elementwise=sum(counts[kind] for kind in quantization.ELEMENTWISE),
            looked_up=counts["Gather"],
            outlying=rescaling.outlying(model, ranges),
        )
        original = runtime.session(Path(self._job.model_path), runtime.options(self._runtime))

        def look(recipe: Recipe) -> preview.Preview:
            self._listener.progress("looking", recipe.label, 0.35)
            return preview.look(material, model, original, recipe, folder=self._work)

        looks = [look(recipe) for recipe in search.candidates(facts, self._job.device_class)]
        static = [one for one in looks if one.recipe.passes[-1].name == "quantization"]
        best = max(static, key=lambda one: one.sqnr_db, default=None)
        nodes = quantization.eligible(model, quantization.Settings())
        if best is not None and best.sqnr_db < GOOD_DB and len(nodes) > 1:
            self._listener.progress("nodes", f"finding the worst of {len(nodes)} nodes", 0.4)
            stop = time.monotonic() + _NODES_SHARE * (self._ends - time.monotonic())
            alone = preview.single_node_sqnr(
                material, model, original, best.recipe, nodes, stop=stop
            )
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
            measured = self._guess_marked(material, answer.measurement)
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
            probe_path=str(self._work / f"probe-{key[:12]}.npz"),
        )

    def _rung(
        self, material: Material, recipe: Recipe, file: Path, key: str, found: Measurement
    ) -> None:
        """Move a candidate's files into place, then remember it: a power cut repeats the trial."""
        digest = sha256(file)
        target = self._out / f"rung-{digest[:12]}.onnx"
        file.replace(target)
        probe = self._work / f"probe-{key[:12]}.npz"
        placed = self._out / f"probe-{digest[:12]}.npz"
        if probe.exists():
            probe.replace(placed)
        rung = Rung(
            file=target.name,
            sha256=digest,
            recipe=recipe,
            runtime=self._runtime,
            measurement=self._guess_marked(material, found),
            meets_budget=False,
            verified=material.verified,
            probe=placed.name if placed.exists() else None,
        )
        ladder.replace(self._work / f"tried-{key}.json", Tried(rung=rung).to_json())
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
        try:
            rung = Tried.model_validate_json((self._work / f"tried-{key}.json").read_bytes()).rung
            if rung is None or sha256(self._out / rung.file) != rung.sha256:
                return False
        except (OSError, ValidationError):
            return False
        self._add(rung)
        return True

    def _guess_marked(self, material: Material, found: Measurement) -> Measurement:
        guessed = found.agreement.output in material.guessed
        agreement = found.agreement.model_copy(update={"guessed": guessed})
        return found.model_copy(update={"agreement": agreement})

    def _sweep(self, found: Ladder) -> None:
        """Remove what no rung names: rejected candidates, leftovers of a run that was killed."""
        kept = {rung.file for rung in found.rungs} | {rung.probe for rung in found.rungs}
        for pattern in ("rung-*.onnx", "probe-*.npz"):
            for path in self._out.glob(pattern):
                if path.name not in kept:
                    path.unlink()
        for pattern in ("candidate-*", "probe-*", "*.tmp"):
            for path in self._work.glob(pattern):
                path.unlink()


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
