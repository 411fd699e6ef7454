"""Runs by rote: what was asked before of a quick model, with nothing but other data in it.

The data go to where the inputs are bound, the model runs, and the outputs lie where they are bound.
Whatever is not as it was (another variant, a queue, a region that has gone, an output of another
shape) is left to the usual way, which says so.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from time import perf_counter_ns

import numpy as np

from agent.errors import BadInput
from agent.protocol.oip import InferRequest
from agent.protocol.tensors import Array
from agent.serving import sharing
from agent.serving.api import Said
from agent.serving.faults import NotFound
from agent.serving.question import Place, Question
from agent.serving.runs import Pending, Prepared, Ran
from agent.serving.runtime import CannotRun, Stop
from agent.serving.service import Service
from agent.serving.variant import Variant

_MOST_BYTES = 64 * 1024
"""Of inputs and outputs together, where the memory is ours."""
_NOTHING: Sequence[bytes] = ()
Say = Callable[[Sequence[bytes]], Said]
"""Sends outputs, and says how much of the answer that was."""
Done = Callable[[Said | None], None]


class Rote:
    """One question of one variant, bound to memory that the variant may let go."""

    __slots__ = ("_prepared", "_size", "_variant")

    def __init__(self, variant: Variant, prepared: Prepared, size: int) -> None:
        """`size`: of the inputs, in bytes."""
        self._variant = variant
        self._prepared = prepared
        self._size = size

    def answer(self, data: bytes, at: int) -> Sequence[bytes] | None:
        """The outputs as bytes, for the inputs that lie in `data` from `at` to its end.

        None: it has to be asked another way.
        """
        prepared = self.ready()
        if prepared is None:
            return None
        began_ns = perf_counter_ns()
        if prepared.into is not None:
            prepared.into[:] = data[at:]
        made = self.run(began_ns)
        return None if made is None else self._sent(made)

    def later(self, data: bytes, at: int, say: Say, done: Done) -> Pending | None:
        """As `answer`, on the model's thread, which gives the outputs to `say`; then `done` is
        called with what came of it, or None.

        None: it has to be asked the usual way, at once.
        """
        prepared, variant = self._prepared, self._variant
        call, into = prepared.call, prepared.into
        if call is None or not (variant.plain and self._whole()):
            return None
        began_ns = perf_counter_ns()

        def job(stop: Stop) -> tuple[Ran, Said]:
            if into is not None:
                into[:] = data[at:]
            try:
                ran = variant.run(call, stop)
            except CannotRun:
                if not stop.asked:  # an output's shape hangs on values: from now on it is copied
                    prepared.let_go()
                raise
            return ran, say(self._sent(ran.arrays))

        def arrived(made: tuple[Ran, Said] | None, error: BaseException | None) -> None:
            del error  # asked the usual way, it says what is wrong
            if made is None:
                done(None)
                return
            (_, from_ns, to_ns), said = made
            now_ns = perf_counter_ns()
            times = (0, from_ns - began_ns, to_ns - from_ns, now_ns - to_ns)
            variant.meter.succeeded(times, at_ns=now_ns)
            done(said)

        return variant.submit(job, arrived)

    def ready(self) -> Prepared | None:
        """What is bound, if the model would run now."""
        prepared, variant = self._prepared, self._variant
        if prepared.call is None or not (variant.at_once(self._size) or variant.by_itself()):
            return None
        return prepared if not prepared.regions or self._whole() else None

    def run(self, began_ns: int) -> Sequence[Array] | None:
        """The outputs where they are bound, until the next run; None: as `answer`."""
        variant, call = self._variant, self._prepared.call
        assert call is not None
        try:
            arrays, from_ns, to_ns = variant.run(call)
        except CannotRun:  # as above
            self._prepared.let_go()
            return None
        except BadInput:
            return None
        now_ns = perf_counter_ns()
        times = (from_ns - began_ns, 0, to_ns - from_ns, now_ns - to_ns)
        variant.meter.succeeded(times, at_ns=now_ns)
        return arrays

    def _sent(self, arrays: Sequence[Array]) -> Sequence[bytes]:
        """What goes out: nothing of what lies in the client's memory."""
        return _NOTHING if self._prepared.regions else [array.tobytes() for array in arrays]

    def _whole(self) -> bool:
        return all(region.whole() for region in self._prepared.regions)


def learn(
    service: Service,
    variant: Variant,
    question: Question,
    asked: InferRequest,
    outputs: Sequence[Array],
) -> Rote | None:
    """How to run this question by rote, now that it was answered with `outputs`, if it can be.

    Its tensors all lie in shared memory, or its inputs behind its JSON and its outputs go there.
    """
    if not question.kept or asked.within_s is not None:
        return None
    if asked.shared:
        with suppress(NotFound, BadInput):  # the region has gone meanwhile
            return _known(variant, sharing.key(service.regions, asked))
        return None
    if question.plain and question not in variant.known.prepared:
        bind(variant, question, question.places, named(question.names, outputs))
    return _known(variant, question)


def bind(
    variant: Variant, key: Hashable, places: Sequence[Place], outputs: dict[str, Array]
) -> Rote | None:
    """Bind inputs that lie at `places` of memory of our own, and outputs like those given.

    What cannot be bound is remembered too, and not tried again.
    """
    size = places[-1].offset + places[-1].values * places[-1].dtype.itemsize
    made = sum(array.nbytes for array in outputs.values())
    aligned = all(place.offset % place.dtype.itemsize == 0 for place in places)
    bindable = all(map(sharing.bindable, outputs.values()))
    prepared = Prepared(())
    if size + made <= _MOST_BYTES and aligned and bindable:
        into = np.empty(size, "u1")
        inputs = {
            name: into[offset : offset + values * dtype.itemsize].view(dtype).reshape(shape)
            for name, dtype, shape, values, offset in places
        }
        like = {name: np.empty_like(array) for name, array in outputs.items()}
        with suppress(CannotRun):
            prepared = Prepared((), variant.model.bind(inputs, like), into.data)
    variant.known.keep(key, prepared)
    return _known(variant, key)


def named(names: Sequence[str], arrays: Sequence[Array]) -> dict[str, Array]:
    """Outputs by their names, in their order."""
    return dict(zip(names, arrays, strict=True))


def _known(variant: Variant, key: Hashable) -> Rote | None:
    prepared = variant.known.prepared.get(key)
    if prepared is None or prepared.call is None:
        return None
    return Rote(variant, prepared, prepared.call.size)
