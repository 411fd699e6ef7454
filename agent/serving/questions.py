"""What requests ask, read once: frame after frame only the tensors differ.

A client that keeps asking sends the same JSON in front of other data, or about the same places in
shared memory. What it says is read and checked against the model once, and kept by its bytes; so
is the JSON of the answer, which hangs on the outputs' shapes alone.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
_MOST_KEPT = 256
_MOST_KEPT_BYTES = 2048
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


class Questions:
    """What was asked of one model, by the bytes that ask it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._kept: dict[bytes, Question] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def read(
        self, headers: Mapping[bytes, bytes], body: memoryview
    ) -> tuple[Question, InferRequest]:
        """Read a request; the arrays share the memory of `body`.

        Raises:
            BadInput: it is not what the protocol says, or does not fit the model.
        """
        length = headers.get(LENGTH)
        if length is None:
            return self._read(body, len(body), body[:0])
        if not length.isdigit() or len(length) > 12:
            raise BadInput(f"cannot read {oip.HEADER_LENGTH} {length[:20]!r}: not a length")
        size = int(length)
        if size == 0:
            asked = oip_requests.read_raw(body, inputs=self.model.inputs)
            self.model.check(asked.inputs)
            return Question(Said((), binary=True), self.model), asked
        if size > len(body):
            raise BadInput(f"cannot split a body of {len(body)} bytes after {size} bytes")
        return self._read(body, size, body[size:])

    def _read(self, body: memoryview, size: int, tail: memoryview) -> tuple[Question, InferRequest]:
        text = body[:size].tobytes() if size <= _MOST_KEPT_BYTES else b""
        question = self._kept.get(text)
        if question is not None:
            return question, question.asked(tail)
        return self._new(oip_requests.document(text or body[:size]), text, tail)

    def told(self, document: Any) -> tuple[Question, InferRequest]:
        """As `read`, of JSON that was read and has all its data in it."""
        return self._new(document, b"", memoryview(b""))

    def _new(self, document: Any, text: bytes, tail: memoryview) -> tuple[Question, InferRequest]:
        question = Question(oip_requests.said(document), self.model)
        asked = question.asked(tail)
        if not asked.shared:  # what lies in shared memory is checked when it is looked at
            self.model.check(asked.inputs)
        if text and (len(tail) or asked.shared):
            question.keep()
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[text] = question
        return question, asked


@functools.lru_cache(_MOST_KEPT)
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
