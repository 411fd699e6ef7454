"""Tries candidates: kept by trials on the choosing part, reported on inputs that chose nothing.

The order is what keeps figures honest. All that accepts, rejects or orders reads the choosing
part. Only then is the reporting part read, once for each kept candidate; where it shows that none
of them meets the budget after all, the next ones are tried.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from compression import judging, pipeline, working
from compression.calibration.material import Material
from compression.choosing import bounds, front, preview, verdict
from compression.choosing.measuring import Kept, Measuring, why
from compression.choosing.placing import Places, claimed
from compression.choosing.preview import Preview
from compression.choosing.search import ORIGINAL
from compression.choosing.shelf import Shelf
from compression.choosing.trials import Listener, Trials
from compression.errors import CannotRun
from compression.findings import Measurement, Rejected, Rung
from compression.job import CompressJob, Recipe, Runtime

MOST_UNSURE = 3
"""Rungs that meet the budget, but might not if they were measured again: then one that surely does
is looked for no further."""


class Trying:
    """The rungs and the rejected candidates of one job, as they come about."""

    def __init__(
        self,
        job: CompressJob,
        material: Material,
        shelf: Shelf,
        listener: Listener,
        *,
        say: Callable[[str, str, float], None],
        ends: float,
    ) -> None:
        self.rungs: list[Rung] = []
        self.rejected: list[Rejected] = []
        self.budget = judging.whole(job.budget)
        self._job = job
        self._material = material
        self._shelf = shelf
        self._listener = listener
        self._say = say
        self._ends = ends
        self._cores = job.device_class.cores
        self._trials = Trials(job, material, shelf, listener)
        self._measuring = Measuring(self._trials, shelf, self.budget, cores=self._cores)
        self._places = Places(material.sources(material.choosing))
        self._beaten: dict[str, str] = {}
        self._late = False
        """Whether time was too short for another candidate, when last asked."""

    def baseline(self) -> None:
        """Measure the original against itself: its memory, its noise, its place on the ladder.

        Raises:
            CannotRun: it does not run on this device.
        """
        key = pipeline.key(ORIGINAL, *self._material.keys)
        rung = self._shelf.get(key)
        if rung is None:
            file = self._shelf.copy(key, Path(self._job.model_path))
            # It agrees with itself on any inputs, so that reading these chooses nothing.
            answer = self._trials.reporting(file, key)
            if answer.measurement is None:
                raise CannotRun(f"cannot measure the original: {why(answer)}")
            original = Preview(recipe=ORIGINAL, key=key, path=file)
            rung = self._rung(original, self._trials.runtime, answer.measurement, None)
        self._add(rung)
        self._trials.once_ms = rung.measurement.original_latency_p50_ms

    def later(self, seconds: float) -> None:
        """Give more time: something else had it in between."""
        self._ends += seconds

    @property
    def _whole(self) -> dict[str, float]:
        """The original's size and peak memory."""
        original = self.rungs[0].measurement
        mib = original.original_peak_memory_mib
        return {"size_mib": original.original_size_mib, "peak_mib": mib}

    def run(self, looks: Sequence[Preview], *, make: Callable[[Preview], None]) -> None:
        """Judge all candidates: first those that no other beats at a look, then the others.

        `make` writes a candidate's file where an earlier run has swept it away.
        """
        hopeful = []
        for look in looks:
            reason = verdict.before(look, self.budget, **self._whole)
            if reason is None:
                hopeful.append(look)
            else:
                self.reject(Rejected(recipe=look.recipe, reason=reason))
        found = front.split(preview.placed(self._material, hopeful))
        wanted = bounds.of(self.budget, self.rungs[0].measurement, cores=self._cores).ratio
        binds = wanted is not None and wanted < 1.0
        first, rest = verdict.in_line(
            found.front, [look for look, _ in found.behind], self.budget, **self._whole,
            ratio=wanted if binds else None,
        )  # fmt: skip
        self._beaten = {look.key: by.recipe.label for look, by in found.behind}
        left = [*first, *rest]
        count, most = len(left), len(first)
        while left and self._in_time(0):
            kept = self._choose(left, count, most=most, make=make)
            self._report(kept, make)
            meeting = [rung for rung in self.rungs[1:] if rung.meets_budget]
            sure = [judging.surely(rung, self.budget, cores=self._cores) for rung in meeting]
            if any(sure) or len(meeting) > MOST_UNSURE:
                break
            most = 1
        self._leave(left)

    def reject(self, rejected: Rejected) -> None:
        """Put a candidate aside and tell of it."""
        self.rejected.append(rejected)
        self._listener.tried(rejected)

    def unseen(self, recipes: Sequence[Recipe]) -> None:
        """Say of candidates that nobody looked at them."""
        reason = f"not tried: half of the job's {self._job.minutes:g} minutes were over before"
        left = tuple(Rejected(recipe=one, reason=reason, tried=False) for one in recipes)
        self.rejected += left
        if left:
            self._listener.untried(left)

    def _choose(
        self, left: list[Preview], count: int, *, most: int, make: Callable[[Preview], None]
    ) -> list[Kept]:
        """Take up to `most` candidates from the front of `left`, and keep the good ones."""
        kept: list[Kept] = []
        taken = 0
        while left and taken < most and self._in_time(len(kept)):
            look = left.pop(0)
            taken += 1
            self._say("trying", look.recipe.label, 0.5 + 0.4 * (count - len(left)) / count)
            one = self._measuring.best(look, make)
            if isinstance(one, Rejected):
                self.reject(one)
                continue
            found, original = one.measurement, self.rungs[0].measurement
            reason = verdict.after(found, self.budget, original=original, cores=self._cores)
            if reason is not None:
                predicted = look.predicted_ratio
                self.reject(
                    Rejected(
                        recipe=look.recipe,
                        reason=reason,
                        measurement=found.model_copy(update={"each": None}),
                        predicted_ratio=predicted,
                    )
                )
            else:
                kept.append(one)
        return kept

    def _in_time(self, kept: int) -> bool:
        """Whether one more candidate can be tried, and all that are kept reported."""
        reporting = self._trials.expected_s(len(self._material.report))
        needed = self._trials.expected_s(len(self._material.choosing)) + (kept + 1) * reporting
        self._late = working.now_s() + needed > self._ends
        return not self._late

    def _report(self, kept: list[Kept], make: Callable[[Preview], None]) -> None:
        for one in kept:
            self._places.add(one.look.key, one.measurement.each)
        for done, one in enumerate(kept):
            look = one.look
            at = 0.9 + 0.1 * done / len(kept)
            self._say("reporting", look.recipe.label, at)
            rung = self._shelf.get(look.key)
            if rung is None or rung.runtime != one.how:
                if not look.path.exists():
                    make(look)
                answer = self._trials.reporting(look.path, look.key, one.how)
                if answer.measurement is None:
                    self.reject(Rejected(recipe=look.recipe, reason=why(answer)))
                    continue
                rung = self._rung(look, one.how, answer.measurement, one.measurement)
            self._places.file(rung.sha256, look.key)
            self._add(rung)
        self.rungs = self._places.of(self.rungs)  # of what was kept before, they may have changed

    def _leave(self, left: Sequence[Preview]) -> None:
        """Say of what is left why it was not tried: each for the ladder, together for a person."""
        over = f"not tried: the {self._job.minutes:g} minutes of the job are over"
        if not self._late:
            over = f"not tried: {len(self.rungs) - 1} others promised more"
        untried = [
            Rejected(
                recipe=look.recipe,
                reason=verdict.needless(self._beaten[look.key])
                if look.key in self._beaten
                else over,
                tried=False,
            )
            for look in left
        ]
        self.rejected += untried
        if untried:
            self._listener.untried(tuple(untried))

    def _rung(
        self, look: Preview, how: Runtime, found: Measurement, chosen: Measurement | None
    ) -> Rung:
        return self._shelf.put(
            look.key,
            look.path,
            recipe=look.recipe,
            runtime=how,
            measurement=self._trials.marked(claimed(found, chosen) if chosen else found),
            # The original answers as itself, on whatever inputs.
            verified=self._material.verified or not look.recipe.passes,
            chosen_by=chosen.agreement if chosen else None,
            predicted_ratio=look.predicted_ratio,
        )

    def _add(self, rung: Rung) -> None:
        (placed,) = self._places.of([rung])
        judged = judging.judged(placed, self.budget, cores=self._cores)
        self.rungs.append(judged)
        self._listener.tried(judged)
