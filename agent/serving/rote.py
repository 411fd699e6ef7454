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
from agent.serving.api import Came
from agent.serving.faults import NotFound
from agent.serving.outlet import Outlet
from agent.serving.question import Place, Question
from agent.serving.runs import Prepared
from agent.serving.runtime import CannotRun
from agent.serving.service import Service
from agent.serving.turn import Turn
from agent.serving.variant import Variant

_MOST_BYTES = 64 * 1024
"""Of inputs and outputs together, where the memory is ours."""


class Rote:
    """One question of one variant, bound to memory that the variant may let go."""

    __slots__ = ("_prepared", "variant")

    def __init__(self, variant: Variant, prepared: Prepared) -> None:
        self.variant = variant
        self._prepared = prepared

    def answer(self, told: bytes, data: bytes, at: int) -> bytes | None:
        """`told`, and the outputs for the inputs that lie in `data` from `at` to its end.

        None: it has to be asked another way.
        """
        began_ns = perf_counter_ns()
        prepared = self.ready()
        if prepared is None:
            return None
        into = prepared.into
        if into is not None:
            into[:] = data[at:]
        made = self.variant.again(prepared, began_ns)
        if made is None:
            return None
        if into is None:  # they lie in the client's memory
            return told
        return b"".join((told, *[array.tobytes() for array in made.arrays]))

    def later(
        self, told: bytes, data: bytes, at: int, outlet: Outlet | None, came: Came
    ) -> Turn | None:
        """As `answer`, on the model's thread, which sends the answer by `outlet`.

        None: it has to be asked the usual way, at once.
        """
        prepared = self._prepared
        if prepared.call is None or not self.variant.plain:
            return None
        for region in prepared.regions:
            if not region.whole():
                return None
        return Turn(self.variant, prepared, (told, data, at), outlet, came)

    def ready(self) -> Prepared | None:
        """What is bound, if the model would run now."""
        prepared = self._prepared
        call = prepared.call
        if call is None or not self.variant.ready(call.size):
            return None
        for region in prepared.regions:
            if not region.whole():
                return None
        return prepared


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
    return Rote(variant, prepared)
