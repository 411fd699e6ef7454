"""Times two loaded models side by side, so that drift hits both: short bursts, with pauses."""

import contextlib
import gc
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compression import runtime, samples
from compression.ruler import conditions
from compression.ruler.pace import Pace
from compression.ruler.timing import Round, Segment, Timed

LEAST_SEGMENT_S = 0.001
"""A faster model runs several times per segment: a clock read would be part of the figure."""
LEAST_ROUNDS = 3
"""Run even after the deadline, until `Plan.latest`; then one is enough."""
ROUNDS_FOR_P95 = 20
PATIENCE = 4
"""The most rounds, as a multiple of those asked for, while the interval is too wide."""
ROUNDS_PER_BURST = 4
BURST_S = 0.02
"""No round begins later in a burst: others on the device get their turn."""
HEAT_S = 0.006
"""Untimed work after each pause. A CPU that slept runs 25 % slower at first: measured, a model
of 0.7 ms takes four runs to be as quick as before, by wall and by CPU time."""
_WARM_RUNS = 3
_WARM_S = 0.3
_MOST_REPEATS = 1000


@dataclass(frozen=True)
class Plan:
    """How long to go on; deadlines are of `time.monotonic()`.

    `rounds` are run as a rule: fewer (not below 20) where the ratio's interval is tight
    sooner, up to four times as many where it is not.
    """

    rounds: int
    deadline: float
    latest: float

    def enough(self, done: list[Round], now: float) -> bool:
        """Whether to stop after these rounds."""
        if len(done) < LEAST_ROUNDS:
            return bool(done) and now >= self.latest
        if now >= self.deadline or len(done) >= PATIENCE * self.rounds:
            return True
        timed = Timed.of(done, least=LEAST_ROUNDS)
        if len(timed.rounds) < min(self.rounds, ROUNDS_FOR_P95):
            return False
        return timed.tight()


@dataclass
class Bench:
    """Two sessions on the same samples, and how often each shape runs in one segment."""

    original: Any
    candidate: Any
    inputs: samples.Samples
    indices: tuple[int, ...]
    root: Path = conditions.ROOT
    pace: Pace = field(default_factory=Pace)
    _repeats: dict[tuple[tuple[int, ...], ...], int] = field(default_factory=dict)

    def run(self, plan: Plan) -> tuple[dict[str, Any], dict[str, str]]:
        """Run rounds until `plan` is content; the fields of a Measurement, and how they came.

        Raises:
            BadModel: one of the two fails on a sample.
            BadInputs: a sample cannot be read or holds NaN.
        """
        done: list[Round] = []
        clocks: list[conditions.Clock] = []
        order = self._order()
        began = conditions.read_work(time.process_time(), self.root)
        with _no_collector():
            while not plan.enough(done, time.monotonic()):
                self.pace.rest(at_least_s=0.0)
                self._burst(order, done, clocks)
        ended = conditions.read_work(time.process_time(), self.root)
        timed = Timed.of(done, least=LEAST_ROUNDS)
        return timed.figures(), {
            **timed.method(),
            "shapes": f"{len(self._repeats)} input shapes, in the order of a seeded shuffle",
            "pace": self.pace.describe(),
            "clock": conditions.summary(clocks),
            "load": began.until(ended),
            "scheduling": conditions.scheduling(),
        }

    def _burst(
        self, order: Iterator[int], done: list[Round], clocks: list[conditions.Clock]
    ) -> None:
        """Add a few rounds to `done`, and to `clocks` what was read between them."""
        until = time.monotonic() + BURST_S
        for number in range(ROUNDS_PER_BURST):
            feeds = self.inputs.sample(next(order))
            repeats = self._warm(feeds)
            if number == 0:
                self._heat(feeds)
                clocks.append(conditions.read_clock(self.root))
            taken = self._round(feeds, repeats)
            clocks.append(conditions.read_clock(self.root))
            done.append(replace(taken, steady=clocks[-2].steady(clocks[-1])))
            if time.monotonic() > until:
                return

    def _order(self) -> Iterator[int]:
        """The samples in shuffled order, over and over: any prefix has about the mix of all."""
        order = list(self.indices)
        random.Random(0).shuffle(order)  # noqa: S311  # an order, not a secret
        while True:
            yield from order

    def _heat(self, feeds: samples.Arrays) -> None:
        """Work until the CPU is awake."""
        until = time.monotonic() + HEAT_S
        runtime.run(self.candidate, feeds)
        while time.monotonic() < until:
            runtime.run(self.original, feeds)
            runtime.run(self.candidate, feeds)

    def _round(self, feeds: samples.Arrays, repeats: int) -> Round:
        # So that all three segments begin alike: right after the other model.
        runtime.run(self.candidate, feeds)
        return Round(
            before=_segment(self.original, feeds, repeats),
            candidate=_segment(self.candidate, feeds, repeats),
            after=_segment(self.original, feeds, repeats),
            repeats=repeats,
        )

    def _warm(self, feeds: samples.Arrays) -> int:
        """Run a shape that is new to both until it is not: plans of memory are made per shape."""
        shape = tuple(array.shape for array in feeds.values())
        if shape not in self._repeats:
            began = time.perf_counter()
            once_s = float("inf")
            for _ in range(_WARM_RUNS):
                runtime.run(self.candidate, feeds)
                start = time.perf_counter()
                runtime.run(self.original, feeds)
                now = time.perf_counter()
                once_s = min(once_s, now - start)
                if now - began > _WARM_S:
                    break
            repeats = round(LEAST_SEGMENT_S / max(once_s, 1e-7))
            self._repeats[shape] = max(1, min(_MOST_REPEATS, repeats))
        return self._repeats[shape]


def _segment(session: Any, feeds: samples.Arrays, repeats: int) -> Segment:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(repeats):
        session.run(None, feeds)
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return Segment(max(wall, 1) / repeats / 1e6, cpu / repeats / 1e6)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Keep Python's collector of cycles out of the figures."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
