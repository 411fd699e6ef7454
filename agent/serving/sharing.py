"""Runs requests whose tensors lie in shared memory: bound to it once, then without a copy.

A request that says the same as one before (places, shapes, outputs) uses what was prepared for
that one. Prepared are requests whose tensors all lie in shared memory; others are copied.
"""

from collections.abc import Awaitable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from agent.errors import BadInput
from agent.protocol import tensors
from agent.protocol.oip import InferRequest
from agent.protocol.tensors import Array
from agent.serving.bound import Bound
from agent.serving.runs import Prepared, Ran
from agent.serving.runtime import CannotRun
from agent.serving.shared_memory import Region, Regions
from agent.serving.variant import Variant

_NOT_BOUND = frozenset("bO")  # a byte of 2 is no bool to C++; strings are objects


class _Place(NamedTuple):
    region: Region
    data: memoryview


_Places = Mapping[str, _Place]


def run(
    regions: Regions, variant: Variant, asked: InferRequest, names: Sequence[str]
) -> Ran | Awaitable[Ran]:
    """Run with what lies in shared memory, and leave there what was asked for there.

    The arrays are those of `names`, in their order.

    Raises:
        NotFound, BadInput: a tensor does not lie where it says.
        and what Variant.infer raises.
    """
    inputs, outputs = _placed(regions, asked)
    kept = _key(asked, inputs, outputs)
    prepared = variant.known.prepared.get(kept) if kept else None
    work = _Work(variant, asked, names, inputs, outputs, kept)
    if prepared is None or prepared.bound is None:
        return work.copy()
    try:
        running = variant.infer_bound(prepared.bound, within_s=asked.within_s)
    except CannotRun:
        return work.copy_from_now_on()
    return running if isinstance(running, Ran) else _bound(running, work)


async def _bound(running: Awaitable[Ran], work: "_Work") -> Ran:
    try:
        return await running
    except CannotRun:
        again = work.copy_from_now_on()
        return again if isinstance(again, Ran) else await again


def key(regions: Regions, asked: InferRequest) -> Hashable:
    """Under which a request is prepared; None where not all of it lies in shared memory.

    Raises:
        NotFound, BadInput: as `run`.
    """
    return _key(asked, *_placed(regions, asked))


def bindable(array: Array) -> bool:
    """Whether a tensor of this kind can be read and written where it lies."""
    return array.dtype.kind not in _NOT_BOUND and array.size > 0


def _placed(regions: Regions, asked: InferRequest) -> tuple[_Places, _Places]:
    inputs = {name: _Place(*regions.view(each.place)) for name, each in asked.shared.items()}
    outputs = {
        wanted.name: _Place(*regions.view(wanted.shared))
        for wanted in asked.outputs
        if wanted.shared is not None
    }
    return inputs, outputs


def _key(asked: InferRequest, inputs: _Places, outputs: _Places) -> Hashable:
    if asked.inputs or not outputs or len(outputs) < len(asked.outputs):
        return None
    given = tuple(
        (name, inputs[name].region.serial, each.place, each.dtype, each.shape)
        for name, each in asked.shared.items()
    )
    return given, tuple(
        (wanted.name, outputs[wanted.name].region.serial, wanted.shared) for wanted in asked.outputs
    )


class _Work(NamedTuple):
    """A run that copies; if all of it lies in shared memory, the next one is bound."""

    variant: Variant
    asked: InferRequest
    names: Sequence[str]
    read: _Places
    written: _Places
    key: Hashable

    def copy(self) -> Ran | Awaitable[Ran]:
        inputs = dict(self.asked.inputs)
        for name, place in self.read.items():
            _, dtype, shape = self.asked.shared[name]
            inputs[name] = tensors.from_bytes(name, place.data, dtype=dtype, shape=shape)
        running = self.variant.infer(inputs, self.names, within_s=self.asked.within_s)
        if isinstance(running, Ran):
            return self._finish(running, inputs)
        return self._finish_later(running, inputs)

    def copy_from_now_on(self) -> Ran | Awaitable[Ran]:
        """Where what was bound cannot be run: an output's shape that depends on values."""
        prepared = self.variant.known.prepared.get(self.key)
        if prepared is not None:
            prepared.let_go()
        return self.copy()

    async def _finish_later(self, running: Awaitable[Ran], inputs: dict[str, Array]) -> Ran:
        return self._finish(await running, inputs)

    def _finish(self, ran: Ran, inputs: dict[str, Array]) -> Ran:
        """Put the outputs in their places."""
        for name, array in zip(self.names, ran.arrays, strict=True):
            place = self.written.get(name)
            if place is None:
                continue
            data = tensors.to_bytes(array)
            if len(data) > len(place.data):
                raise BadInput(
                    f"cannot give output '{name}' in shared memory: it has {len(data)} bytes, "
                    f"{len(place.data)} are given"
                )
            place.data[: len(data)] = data
        if self.key is not None and self.key not in self.variant.known.prepared:
            self.variant.known.keep(self.key, Prepared(self._regions(), self._bind(ran, inputs)))
        return ran

    def _regions(self) -> tuple[Region, ...]:
        places = (*self.read.values(), *self.written.values())
        return tuple({place.region.serial: place.region for place in places}.values())

    def _bind(self, ran: Ran, inputs: dict[str, Array]) -> Bound | None:
        """Bind for the next one, where each tensor can be used as it lies there."""
        arrays = (*inputs.values(), *ran.arrays)
        if not all(map(bindable, arrays)):
            return None
        outputs = {
            name: _in_place(self.written[name].data, array)
            for name, array in zip(self.names, ran.arrays, strict=True)
        }
        shared = all(
            np.may_share_memory(inputs[name], np.frombuffer(place.data, "u1"))
            for name, place in self.read.items()
        )
        # What lies across one another would be read half written.
        apart = not any(
            np.may_share_memory(output, other)
            for output in outputs.values()
            for other in (*inputs.values(), *outputs.values())
            if other is not output
        )
        if not (shared and apart and all(array.flags.aligned for array in outputs.values())):
            return None
        with suppress(CannotRun):
            return self.variant.model.bind(inputs, outputs)
        return None


def _in_place(data: memoryview, like: Array) -> Array:
    """The array over the memory that it is to be written to."""
    array: Array = np.frombuffer(data[: like.nbytes], like.dtype)
    return array.reshape(like.shape)
