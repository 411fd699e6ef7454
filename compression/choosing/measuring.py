"""Measures a candidate on the choosing part, as it is best run; or recalls what was measured."""

from collections.abc import Callable
from dataclasses import dataclass

from compression import judging
from compression.choosing import settings
from compression.choosing.preview import Preview
from compression.choosing.shelf import Shelf
from compression.choosing.trials import Trials
from compression.findings import Measurement, Rejected
from compression.job import Budget, Runtime
from compression.stream import TrialAnswer


@dataclass(frozen=True)
class Kept:
    """A candidate as it is run, and its measurement on the choosing part."""

    look: Preview
    how: Runtime
    measurement: Measurement


class Measuring:
    """The trials on the choosing part of one job; what an earlier run of it said is recalled."""

    def __init__(self, trials: Trials, shelf: Shelf, budget: Budget, *, cores: int) -> None:
        self._trials = trials
        self._shelf = shelf
        self._budget = budget
        self._cores = cores

    def best(self, look: Preview, make: Callable[[Preview], None]) -> Kept | Rejected:
        """How it is best run, measured on the choosing part; rejected where its trial failed.

        What misses a budget of time that another way to run it may meet is measured so as well.
        `make` writes a candidate's file where an earlier run has swept it away.
        """
        how = look.runtime or settings.usual(look.recipe, self._trials.runtime.threads)
        answer = self._measured(look, how, make)
        if answer.measurement is None:
            return Rejected(recipe=look.recipe, reason=why(answer))
        first = Kept(look, how, answer.measurement)
        other = settings.otherwise(first.measurement, how, self._budget, cores=self._cores)
        again = self._measured(look, other, make).measurement if other else None
        if other is None or again is None:
            return first
        return min(first, Kept(look, other, again), key=self._shortfall)

    def _shortfall(self, one: Kept) -> float:
        return judging.shortfall(one.measurement, self._budget, cores=self._cores)

    def _measured(
        self, look: Preview, how: Runtime, make: Callable[[Preview], None]
    ) -> TrialAnswer:
        """What a trial on the choosing part says, or said in an earlier run."""
        found = self._shelf.recall(look.key, how)
        if not look.path.exists() and (found is None or self._shelf.get(look.key) is None):
            make(look)
        if found is not None:
            return TrialAnswer(measurement=found)
        answer = self._trials.choosing(look.path, how)
        if answer.measurement is None:
            return answer
        found = self._trials.marked(answer.measurement)
        self._shelf.remember(look.key, how, found)
        return TrialAnswer(measurement=found)


def why(answer: TrialAnswer) -> str:
    """Why a trial measured nothing."""
    return answer.failed.message if answer.failed else "the trial gave no answer"
