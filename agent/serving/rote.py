"""Runs by rote: what was asked before of a quick model, with nothing but other data in it.

The data go to where the inputs are bound, the model runs, and the outputs lie where they are bound.
Whatever is not as it was (another variant, a queue, a region that has gone, an output of another
shape) is left to the usual way, which says so.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from time import perf_counter_ns

import numpy as np

from agent.errors import BadInput
from agent.protocol.oip import InferRequest
from agent.protocol.tensors import Array
from agent.serving import sharing
from agent.serving.questions import Place, Question
from agent.serving.runs import Call, Prepared
from agent.serving.runtime import CannotRun
from agent.serving.service import Service
from agent.serving.variant import Variant

_MOST_BYTES = 64 * 1024
"""Of inputs and outputs together, where the memory is ours."""
_NOTHING: Sequence[bytes] = ()


class Rote:
    """One question of one variant, bound to memory.

    That memory is looked up each time and not kept here: a region must go when its client says so.
    """

    __slots__ = ("_key", "_size", "_variant")

    def __init__(self, variant: Variant, key: Hashable, size: int) -> None:
        """`variant.prepared[key]` has what is bound; its inputs have `size` bytes."""
        self._variant = variant
        self._key = key
        self._size = size

    def answer(self, data: bytes, at: int) -> Sequence[bytes] | None:
        """The outputs as bytes, for the inputs that lie in `data` from `at` to its end.

        None: it has to be asked the usual way.
        """
        prepared = self.ready()
        if prepared is None:
            return None
        began_ns = perf_counter_ns()
        if prepared.into is None:
            return None if self.run(prepared, began_ns) is None else _NOTHING
        prepared.into[:] = data[at:]
        made = self.run(prepared, began_ns)
        return None if made is None else [array.tobytes() for array in made]

    def ready(self) -> Prepared | None:
        """What is bound, if the model would run now and nothing has gone."""
        prepared = self._variant.prepared.get(self._key)
        if prepared is None or prepared.bound is None or not self._variant.at_once(self._size):
            return None
        regions = prepared.regions
        return None if regions and not all(region.whole() for region in regions) else prepared

    def run(self, prepared: Prepared, began_ns: int) -> Sequence[Array] | None:
        """The outputs where they are bound, until the next run; None: as `answer`."""
        variant, bound = self._variant, prepared.bound
        assert bound is not None
        try:
            arrays, from_ns, to_ns = variant.run(
                Call(bound.inputs, bound.outputs, self._size, bound)
            )
        except CannotRun:  # an output's shape hangs on values: from now on it is copied
            variant.prepared[self._key] = Prepared(prepared.regions)
            return None
        except BadInput:
            return None
        now_ns = perf_counter_ns()
        times = (from_ns - began_ns, 0, to_ns - from_ns, now_ns - to_ns)
        variant.meter.succeeded(times, at_ns=now_ns)
        return arrays


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
    if not question.kept:
        return None
    if asked.shared:
        return _known(variant, sharing.key(service.regions, asked))
    if question.plain and question not in variant.prepared:
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
    variant.prepare(key, prepared)
    return _known(variant, key)


def named(names: Sequence[str], arrays: Sequence[Array]) -> dict[str, Array]:
    """Outputs by their names, in their order."""
    return dict(zip(names, arrays, strict=True))


def _known(variant: Variant, key: Hashable) -> Rote | None:
    prepared = variant.prepared.get(key)
    if prepared is None or prepared.bound is None:
        return None
    return Rote(variant, key, sum(array.nbytes for array in prepared.bound.inputs.values()))
