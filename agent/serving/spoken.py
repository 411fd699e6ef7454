"""Requests whose data stand in their JSON, asked again: all the rest of it is compared as bytes.

What was said before (names, shapes, datatypes, parameters, the id) is checked no more; the numbers
are, one by one, while they are packed to where the inputs are bound.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple

import orjson

from agent.protocol import oip_requests
from agent.protocol.tensors import Array
from agent.serving import rote
from agent.serving.api import Answer
from agent.serving.question import LENGTH, Place, Question
from agent.serving.rote import Rote
from agent.serving.variant import Variant

_DATA = b'"data"'
_MOST_BYTES = 64 * 1024
"""Of a request: a longer one takes more time to read than can be saved."""
_CODES = {
    "<f4": "f", "<f8": "d", "|i1": "b", "<i2": "h", "<i4": "i", "<i8": "q",
    "|u1": "B", "<u2": "H", "<u4": "I", "<u8": "Q",
}  # fmt: skip
"""numpy's datatypes as struct's, which checks kind and range of what it packs, but for booleans."""
_GAP = b'"data":[]'
"""Where an output goes. A name cannot hold it: in a string its quotes would be escaped."""
_MOST_KEPT = 64
_ALIGNED_BYTES = 8


class Heard(NamedTuple):
    """A document, taken apart into the data of its inputs and all the rest."""

    document: dict[str, Any]
    data: Sequence[Any]
    rest: bytes

    def whole(self) -> dict[str, Any]:
        """Put it together again, as it came but for the order of its fields."""
        for tensor, values in zip(self.document["inputs"], self.data, strict=True):
            tensor["data"] = values
        return self.document


def hear(headers: Mapping[bytes, bytes], body: memoryview) -> Heard | None:
    """Take a request apart, if the data of all its inputs stand in its JSON.

    Raises:
        BadInput: it is no JSON.
    """
    if len(body) > _MOST_BYTES or LENGTH in headers:
        return None
    text = body.tobytes()
    return _taken_apart(oip_requests.document(text)) if _DATA in text else None


def answered(variant: Variant, heard: Heard, began_ns: int) -> Answer | None:
    """The answer, where the rest was heard before; None: ask the usual way."""
    known = variant.known.spoken.get(heard.rest)
    parts = None if known is None else known.answer(heard.data, began_ns)
    return None if parts is None else Answer(200, parts, spoken=known)


def _taken_apart(document: Any) -> Heard | None:
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not inputs:
        return None
    for tensor in inputs:
        if type(tensor) is not dict or "data" not in tensor:
            return None
    data = [tensor.pop("data") for tensor in inputs]
    try:
        return Heard(document, data, orjson.dumps(document))
    except TypeError:  # nested deeper than it may be written
        for tensor, values in zip(inputs, data, strict=True):
            tensor["data"] = values
        return None


class Spoken:
    """How to answer one such question by rote."""

    def __init__(
        self,
        rote: Rote,
        forms: Sequence[tuple[struct.Struct, int]],
        around: Sequence[bytes],
    ) -> None:
        """`forms`: how and where each input is packed; `around`: the answer without its data."""
        self._rote = rote
        self._forms = forms
        self._first, *self._behind = around

    def again(self, data: bytes) -> bytes | None:
        """The body for the data of the only input, in JSON; None: as `answer`."""
        began_ns = perf_counter_ns()
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            return None
        parts = self.answer((values,), began_ns)
        return None if parts is None else b"".join(parts)

    def answer(self, data: Sequence[Any], began_ns: int) -> list[bytes] | None:
        """The parts of the body for these data; None: it has to be asked the usual way."""
        prepared = self._rote.ready()
        if prepared is None or prepared.into is None:
            return None
        for (form, at), values in zip(self._forms, data, strict=True):
            if type(values) is not list or bool in map(type, values):
                return None
            try:
                form.pack_into(prepared.into, at, *values)
            except (struct.error, OverflowError):  # too many, too few, too large, no numbers
                return None
        made = self._rote.variant.again(prepared, began_ns)
        if made is None:
            return None
        parts = [self._first]
        for flat, behind in zip(made.flat, self._behind, strict=True):
            parts += orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY), behind
        return parts


def learn(
    variant: Variant,
    heard: Heard,
    question: Question,
    outputs: Sequence[Array],
    told: Sequence[bytes | memoryview],
) -> None:
    """Remember a document that was answered with `outputs`; `told` are the parts of the body.

    It is bound when it comes again: what is asked only once is not worth it.
    """
    kept = variant.known.spoken
    if heard.rest in kept:
        if kept[heard.rest] is None and not variant.known.prepared.get(heard.rest):
            kept[heard.rest] = _bound(variant, heard, question, outputs, bytes(told[0]))
        return
    if len(kept) >= _MOST_KEPT:
        del kept[next(iter(kept))]
    kept[heard.rest] = None


def _bound(
    variant: Variant, heard: Heard, question: Question, outputs: Sequence[Array], told: bytes
) -> Spoken | None:
    asked, wanted = question.said.tensors, question.wanted
    plain = not any(each.binary or each.classes or each.shared for each in wanted)
    kinds = {each.dtype.str for each in asked} | {each.dtype.str for each in outputs}
    if not plain or not kinds <= _CODES.keys():
        return None
    places, at = [], 0
    for name, dtype, shape, *_ in asked:
        values = math.prod(shape)
        places.append(Place(name, dtype, shape, values, at))
        at += -(-values * dtype.itemsize // _ALIGNED_BYTES) * _ALIGNED_BYTES
    by_heart = rote.bind(variant, heard.rest, places, rote.named(question.names, outputs))
    if by_heart is None:
        return None
    forms = [
        (struct.Struct(f"<{place.values}{_CODES[place.dtype.str]}"), place.offset)
        for place in places
    ]
    return Spoken(by_heart, forms, _around(told))


def _around(told: bytes) -> list[bytes]:
    """An answer without the data of its outputs, in the pieces that they leave."""
    document = orjson.loads(told)
    for tensor in document["outputs"]:
        tensor["data"] = []
    *before, last = orjson.dumps(document).split(_GAP)
    return [*(piece + _GAP[:-2] for piece in before), last]
