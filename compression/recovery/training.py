"""The training itself: a rate is found, then steps are taken until the time is over.

Each step's gradient is of `batch` samples, added up over as many runs as the memory wants. The
rate falls along half a cosine (Loshchilov & Hutter 2017, "SGDR"), features count less and less. Now
and then the model is looked at on inputs that tune: the best one that was seen is what remains.
"""

from dataclasses import dataclass, field, replace
from math import cos, pi
from typing import Any

import numpy as np

from compression import working
from compression.recovery import checkpoints, ways
from compression.recovery.checkpoints import State
from compression.recovery.ground import Ground
from compression.recovery.judging import Figures, Judge
from compression.recovery.optimizer import Adam
from compression.recovery.plans import Plan
from compression.recovery.streams import Stream, joined
from compression.recovery.student import Student, Weights
from compression.recovery.teacher import Teacher
from compression.recovery.ways import Way

TRYING = 0.05
"""The share of the time that each way gets before one is taken."""
FEATURES_UNTIL = 0.5
"""Progress at which features count no more."""
WARM_STEPS = 10
LOOKS = 12
"""How often the model is looked at, at most."""
PATIENCE = 5
"""Looks without a better model, behind the middle: then it ends."""
LOOKING = 0.15
"""The most of the time that looks may take."""


@dataclass
class Training:
    """One student, its teacher and its inputs."""

    student: Student
    teacher: Teacher
    judge: Judge
    ground: Ground
    plan: Plan
    beginning: Figures | None = None
    state: State = field(default_factory=State)

    def run(self) -> None:
        """Train until the time is over; the student then holds the best weights that were seen.

        Raises:
            BadModel: the original or the student does not run on a sample.
        """
        self._open()
        self.beginning = self.judge.figures(self.student.model, self.ground.feeds("tune"))
        self.plan.report(f"held out before: {self.beginning.told()}", self._done())
        if not self.state.rate:
            way = Way(self.plan.rate) if self.plan.rate else self._found()
            self.state.rate, self.state.weights = way.rate, way.weights
            self._adam, self.state.drawn = self._new_adam(), 0
            self._save()
        self._stream = self._new_stream()
        for _ in range(self.state.drawn):  # what was killed goes on with those that come next
            for _ in self._stream.step(self.plan.batch, runs_of=self.plan.runs_of):
                pass
        self._train()
        if "best" in self.state.tensors:
            self._put(self.state.tensors["best"])

    # --- where it stands -------------------------------------------------------------------

    def _open(self) -> None:
        """Begin, or go on where a checkpoint says."""
        self._stream = self._new_stream()
        self._adam = self._new_adam()
        if self.plan.checkpoint is None:
            return
        known = checkpoints.load(self.plan.checkpoint, key=self.plan.key)
        if known is None:
            return
        self.state = known
        self._put(known.tensors.pop("now"))
        self._adam.first, self._adam.second = (known.tensors.pop(at) for at in ("first", "second"))
        self._adam.steps = known.steps

    def _new_stream(self) -> Stream:
        return Stream(self.ground.training, bound_bytes=self.plan.stock_bytes, seed=self.plan.seed)

    def _new_adam(self) -> Adam:
        return Adam(self.student.leaves(), self.student.parameters.leaves)

    def _copy(self) -> dict[str, Any]:
        return {name: one.detach().clone() for name, one in self.student.leaves().items()}

    def _put(self, tensors: dict[str, Any]) -> None:
        for name, leaf in self.student.leaves().items():
            leaf.data.copy_(tensors[name])

    def _save(self) -> None:
        if self.plan.checkpoint is None:
            return
        self.state.steps = self._adam.steps
        self.state.tensors |= {
            "now": self.student.leaves(), "first": self._adam.first, "second": self._adam.second,
        }  # fmt: skip
        try:
            checkpoints.save(self.plan.checkpoint, self.state, key=self.plan.key)
        except OSError as error:  # the training itself needs no disk
            self.plan.report(f"cannot keep a checkpoint: {error.strerror}", self._done())

    # --- steps -----------------------------------------------------------------------------

    def _step(self, way: Way, weights: Weights) -> float:
        """One step on `batch` samples; the mean loss, NaN where nothing was learned."""
        total, rng = 0.0, np.random.default_rng([self.plan.seed, self.state.drawn])
        self.state.drawn += 1
        for samples in self._stream.step(self.plan.batch, runs_of=self.plan.runs_of):
            feeds = self.plan.augmenter.change(joined(samples), rng)
            share = len(samples) / self.plan.batch
            loss = share * self.student.loss(feeds, self.teacher.answer(feeds), weights)
            loss.backward()
            total += float(loss.detach())
        if not (np.isfinite(total) and self._adam.sound()):
            self._adam.clear()
            return float("nan")
        self._adam.step(way.rate, weights=way.weights)
        self.student.parameters.settle()
        return total

    def _look(self) -> Figures:
        return self.judge.figures(self.student.written(), self.ground.feeds("tune"))

    def _found(self) -> Way:
        """The way that comes farthest in a short run; the model is put back behind each."""
        begin, started_s = self._copy(), working.now_s()
        rounded = self.student.parameters.rounded()
        self._step(Way(0.0), Weights(1.0, 1.0))
        lasts_s = WARM_STEPS * (working.now_s() - started_s)
        each_s = TRYING * self.plan.seconds
        if lasts_s > 2 * each_s:
            return ways.USUAL[rounded]  # there is no time for anything but the training itself
        scores: dict[Way, float] = {}
        for way in ways.tried(rounded=rounded):
            self._adam, self._stream = self._new_adam(), self._new_stream()
            started_s = working.now_s()
            while working.now_s() - started_s < each_s or self._adam.steps < WARM_STEPS:
                warm = min(1.0, (self._adam.steps + 1) / WARM_STEPS)
                self._step(replace(way, rate=way.rate * warm), Weights(1.0, 1.0))
            scores[way] = self._scored(self._look())
            self.state.spent_s += working.now_s() - started_s
            self._put(begin)
            self.plan.report(f"{way.told()}: {scores[way]:.3f} of the error", self._done())
        return ways.best(scores)

    def _scored(self, figures: Figures) -> float:
        assert self.beginning is not None
        return figures.score(self.beginning)

    def _done(self) -> float:
        taken = self._adam.steps / self.plan.steps if self.plan.steps else 0.0
        return min(1.0, max(taken, self.state.spent_s / self.plan.seconds))

    def _train(self) -> None:
        state = self.state
        state.next_look = state.next_look or self._done() + (1 - self._done()) / LOOKS
        last_s, losses = working.now_s(), list[float]()
        while self._done() < 1.0:
            done = self._done()
            warm = min(1.0, (self._adam.steps + 1) / WARM_STEPS)
            features = max(0.0, 1.0 - done / FEATURES_UNTIL)
            rate = self.state.rate * warm * 0.5 * (1 + cos(pi * done))
            losses.append(self._step(Way(rate, state.weights), Weights(1.0, features)))
            now_s = working.now_s()
            self.state.spent_s, last_s = self.state.spent_s + now_s - last_s, now_s
            if self._done() < state.next_look:
                continue
            better = self._compare(float(np.nanmean(losses)) if losses else float("nan"))
            losses.clear()
            state.since = 0 if better else state.since + 1
            # Looking costs time too: how often it is done follows from how long it takes.
            looked_s, last_s = working.now_s() - now_s, working.now_s()
            done, pause = self._done(), max(1 / LOOKS, looked_s / (LOOKING * self.plan.seconds))
            state.next_look = min(1.0, done + pause) if done < 1 - pause / 4 else 1.0
            self._save()
            if state.since >= PATIENCE and done > 0.5:
                return

    def _compare(self, loss: float) -> bool:
        """Look at the model; keep it if it is the best so far."""
        figures = self._look()
        score = self._scored(figures)
        better = score < self.state.best_score
        if better:
            self.state.best_score = score
            self.state.tensors["best"] = self._copy()
        self.plan.report(
            f"step {self._adam.steps}, loss {loss:.4g}, held out: {figures.told()}", self._done()
        )
        return better
