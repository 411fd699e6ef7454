"""One loaded model as it serves: on which thread it runs, who is inside, how long it takes."""

import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agent.errors import BadInput
from agent.protocol.private import LoadRequest
from agent.protocol.tensors import Array
from agent.serving import runtime
from agent.serving.bound import Bound
from agent.serving.faults import Busy
from agent.serving.gate import Gate
from agent.serving.inside import Inside
from agent.serving.known import Known
from agent.serving.meter import Key, Meter
from agent.serving.pace import Pace
from agent.serving.questions import Questions
from agent.serving.runs import Call, Outcome, Place, Prepared, Ran
from agent.serving.runtime import CannotRun, Model, Stop

Tap = Callable[[Mapping[str, Array], Sequence[str], Sequence[Array] | None], None]
"""Inputs, names of outputs and the outputs, or None where it could not answer."""
MOST_WAITING = 256
"""Requests that may wait for one model: each of them holds its inputs."""


class Variant:
    """A model with one thread of its own, its meter and its lane of the crash page.

    A thread of its own, because a slow model must not keep a quick one waiting; only one,
    because the peak memory that was measured is that of one run at a time.
    """

    def __init__(
        self,
        request: LoadRequest,
        model: Model,
        *,
        meter: Meter,
        place: Place,
        pace: Pace,
        held_mib: float = 0.0,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.request = request
        self.model = model
        self.version = str(request.version)
        self.questions = Questions(model)
        self.meter = meter
        self.held_mib = held_mib
        self.tap: Tap | None = None
        """Shown what ran, where live requests are being kept (capture.py)."""
        self._place = place
        self._mark = place.page.lane(place.lane)
        self._pace = pace
        self._most_waiting = most_waiting
        self.inside = Inside(request.name, place.thread)
        self.known = Known()
        self.gate: Gate | None = None
        """Where requests wait while another variant takes its place."""

    @property
    def key(self) -> Key:
        """Under which its counters are kept."""
        return Key(self.request.name, self.request.version, self.request.sha256)

    def infer(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        within_s: float | None = None,
        fits: bool = False,
    ) -> Ran | Awaitable[Ran]:
        """Run once, now where it is quick: the arrays of `outputs` in their order.

        `fits`: the inputs were checked against the model. An awaitable that is cancelled, or not
        done `within_s`, takes its run out of the queue, or stops it.

        Raises:
            BadInput: the inputs do not fit the model.
            Busy: as many requests as may wait are waiting.
            Expired: not done `within_s`.
            CannotRun: it failed while it ran.
        """
        if not fits:
            self.model.check(inputs)
        size = 0
        for array in inputs.values():
            size += array.nbytes
        return self._enter(Call(inputs, outputs, size), within_s)

    def infer_bound(self, bound: Bound, *, within_s: float | None = None) -> Ran | Awaitable[Ran]:
        """As `infer`, on what `Model.bind` has bound."""
        return self._enter(Call(bound.inputs, bound.outputs, bound.size, bound), within_s)

    def ready(self, size: int) -> bool:
        """Whether it is live and would run inputs of `size` bytes now, and nobody looks on.

        Now: because it is quick, or because it alone is served and holds up nobody.
        """
        inside = self.inside
        if inside.count or inside.retired or self.gate or self.tap or self._place.thread.worker:
            return False
        pace = self._pace
        return size <= pace.most_bytes or (self._place.alone() and pace.short())

    def again(self, prepared: Prepared, began_ns: int) -> Bound | None:
        """Run what is bound, on the loop: its outputs are there until the next run.

        Whoever may do so has asked `ready`. None: it has to be asked the usual way.
        """
        bound, mark = prepared.bound, self._mark
        assert bound is not None
        mark[0] = self.request.index
        from_ns = time.perf_counter_ns()
        try:
            bound.run()
        except Exception as error:
            if not isinstance(runtime.told(error), BadInput):
                prepared.let_go()  # an output's shape hangs on values: from now on it is copied
            return None
        finally:
            mark[0] = 0
        ended_ns = time.perf_counter_ns()
        took_ns = ended_ns - from_ns
        self._pace.learn(took_ns / 1e9, bound.size, certain=False)
        self.meter.succeeded((from_ns - began_ns, 0, took_ns, 0), at_ns=ended_ns)
        return bound

    @property
    def plain(self) -> bool:
        """Whether it is live, with room for one more, and nobody looks on."""
        return (
            not (self.inside.retired or self.gate or self.tap or self.inside.shares)
            and self.inside.count < self._most_waiting
        )

    def _enter(self, call: Call, within_s: float | None) -> Ran | Awaitable[Ran]:
        waiting = self.inside.count
        # Never beside its own thread: the lane of the crash page holds one run.
        if not (waiting or self.inside.shares) and self._pace.quick(call.size):
            return self.run(call)
        if waiting >= self._most_waiting:
            raise Busy(
                f"cannot run {self.request.name}: {waiting} requests wait for it",
                retry_after_s=waiting * self._pace.typical_s,
            )
        late = f"cannot run {self.request.name}: not done within {within_s} s"
        outcome = Outcome(within_s=within_s, late=late)
        return outcome.of(self.inside.submit(functools.partial(self.run, call), outcome.arrived))

    def run(self, call: Call, stop: Stop | None = None) -> Ran:
        """Run now, on this thread: whoever may do so has asked `ready`.

        Raises:
            BadInput, CannotRun: as Model.run.
        """
        self._mark[0] = self.request.index
        # On a thread by CPU time, because wall time on a busy device is others' too. On the loop
        # by wall time: asking the kernel for CPU time costs more than the quickest models.
        cpu_ns = time.thread_time_ns() if stop is not None else 0
        began_ns = time.perf_counter_ns()
        try:
            if call.bound is None:
                arrays = self.model.run(call.inputs, call.outputs, stop=stop)
            else:
                arrays = self.model.run_bound(call.bound, stop=stop)
            ended_ns = time.perf_counter_ns()
        except CannotRun:
            if self.tap is not None and not (stop and stop.asked):
                self.tap(call.inputs, call.outputs, None)
            raise
        finally:
            self._mark[0] = 0
        alone = stop is not None and self.request.runtime.threads == 1
        took_ns = time.thread_time_ns() - cpu_ns if alone else ended_ns - began_ns
        self._pace.learn(took_ns / 1e9, call.size, certain=alone)
        if self.tap is not None:
            self.tap(call.inputs, call.outputs, arrays)
        return Ran(arrays, began_ns, ended_ns)

    async def drain(self, *, within_s: float) -> bool:
        """Wait until nobody is inside; whether that is so. To be called when nobody can enter."""
        return await self.inside.drain(within_s=within_s)

    def go_on(self) -> None:
        """Let requests in again, after a drain that did not end well."""
        self.inside.go_on()

    def free(self) -> None:
        """Free the model; a run that is still inside keeps it alive until it ends."""
        self.known.let_go()
        if not self.inside.count:
            self.model.close()
        self.inside.end()
