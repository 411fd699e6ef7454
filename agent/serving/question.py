"""What a request asks, whatever its data are: read once, for requests that say the same.

So is the JSON of its answer, which hangs on the outputs' shapes alone.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent.errors import BadInput
from agent.protocol import oip, oip_requests, tensors
from agent.protocol.oip import InferRequest, Output, Wanted
from agent.protocol.oip_inputs import Given
from agent.protocol.oip_requests import Said
from agent.protocol.tensors import Array, Dtype, Shape
from agent.serving import classification
from agent.serving.runtime import Model

LENGTH = oip.HEADER_LENGTH.lower().encode()
_JSON = oip.JSON_TYPE.encode()
_BINARY = oip.BINARY_TYPE.encode()
_MOST_FORMS = 256
_MOST_ANSWERS = 16
_SMALL_BYTES = 4096
"""Up to this a copy is quicker than a view."""
_ELSEWHERE = frozenset("bO")  # a byte of 2 is no bool to C++; strings are objects


class Place(NamedTuple):
    """Where in the data behind the JSON an input lies."""

    name: str
    dtype: Dtype
    shape: Shape
    values: int
    offset: int


class Written(NamedTuple):
    """Outputs as they go out: the parts of the body, its type, and headers about it."""

    parts: Sequence[bytes | memoryview]
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Question:
    """What is asked of one model, whatever the data are."""

    __slots__ = ("_known", "_raw", "kept", "names", "places", "said", "size", "wanted")

    def __init__(self, said: Said, model: Model) -> None:
        """Bring together what was said and what the model has.

        Raises:
            BadInput: an output that it does not have, or one that is asked for twice.
        """
        self.said = said
        self.names = (
            _names(said.outputs, model.output_names) if said.outputs else model.output_names
        )
        self.wanted = said.outputs or _all(self.names, said.binary)
        self.kept = False
        """Whether it was asked before, and fits the model: only its data can be wrong."""
        self._known: dict[tuple[Shape, ...], Written] = {}
        self._raw: Sequence[bool] = ()
        """Which outputs go out as they lie in memory; empty: one goes out in another form."""
        self.places: Sequence[Place] = ()
        """Where the inputs lie behind the JSON; empty: one lies elsewhere."""
        self.size = 0
        """How many bytes they have together."""

    def keep(self) -> None:
        """Be ready to be asked again."""
        self.kept = True
        self.places, self.size = _places(self.said.tensors)
        if all(each.shared or (each.binary and not each.classes) for each in self.wanted):
            self._raw = [each.shared is None for each in self.wanted]

    @property
    def plain(self) -> bool:
        """Whether inputs and outputs are bytes behind the JSON, as they lie in memory."""
        return bool(self.places) and bool(self._raw) and all(self._raw)

    def asked(self, tail: memoryview) -> InferRequest:
        """This question about the data in `tail`, which the arrays share.

        Raises:
            BadInput: data that are not what was said of them.
        """
        said = self.said
        if not self.places or len(tail) != self.size:
            return oip_requests.filled(said, tail)
        inputs: dict[str, Array] = {}
        for name, dtype, shape, values, offset in self.places:
            array = np.frombuffer(tail, dtype, values, offset).reshape(shape)
            inputs[name] = array if array.flags.aligned else array.copy()
        return InferRequest(inputs, said.outputs, said.binary, said.id, within_s=said.within_s)

    def write(self, head: dict[str, str], arrays: Sequence[Array]) -> Written:
        """Write the outputs, in the order of `names`; `head` names the model.

        Raises:
            BadInput: an output that cannot go out in the form that was asked for.
        """
        shapes = tuple([array.shape for array in arrays])
        known = self._known.get(shapes)
        if known is not None:
            (text,), kind, headers = known
            raw = [_bytes(array) for array, goes in zip(arrays, self._raw, strict=True) if goes]
            return Written((text, *raw), kind, headers)
        if self.said.id is not None:  # OIP: an id that was given must come back
            head = {**head, "id": self.said.id}
        outputs = [_output(each, array) for each, array in zip(self.wanted, arrays, strict=True)]
        parts, json_bytes = oip.write_response(head, outputs)
        written = Written(parts)
        if json_bytes is not None:
            written = Written(parts, _BINARY, ((LENGTH, str(json_bytes).encode()),))
        if self.kept and self._raw and not any(each.dtype.hasobject for each in arrays):
            if len(self._known) >= _MOST_ANSWERS:
                self._known.clear()
            self._known[shapes] = written._replace(parts=parts[:1])
        return written


@functools.lru_cache(_MOST_FORMS)
def _all(names: Sequence[str], binary: bool) -> Sequence[Wanted]:
    return tuple(Wanted(name, binary) for name in names)


def _places(given: Sequence[Given]) -> tuple[Sequence[Place], int]:
    """Where the inputs lie behind the JSON, and to where; none if not all do as plain numbers."""
    places, at = [], 0
    for name, dtype, shape, _, size, place in given:
        count = math.prod(shape)
        plain = place is None and dtype.kind not in _ELSEWHERE and count > 0
        if not plain or size != count * dtype.itemsize:
            return (), 0
        places.append(Place(name, dtype, shape, count, at))
        at += size
    return places, at


def _names(wanted: Sequence[Wanted], known: Sequence[str]) -> Sequence[str]:
    names = [each.name for each in wanted]
    for name in names:
        if name not in known:
            listed = ", ".join(known)
            raise BadInput(f"cannot give output '{name[:80]}': the model has {listed}")
    if len(set(names)) < len(names):
        raise BadInput(f"cannot give an output twice: {', '.join(names)[:80]}")
    return names


def _bytes(array: Array) -> bytes | memoryview:
    return array.tobytes() if array.nbytes <= _SMALL_BYTES else tensors.to_bytes(array)


def _output(wanted: Wanted, array: Array) -> Output:
    if wanted.shared is not None:
        return Output(wanted.name, array, shared=wanted.shared)
    if wanted.classes:
        array = classification.highest(wanted.name, array, wanted.classes)
    return Output(wanted.name, array, wanted.binary)
