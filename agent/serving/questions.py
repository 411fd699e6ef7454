"""What one model was asked, so that it is read once: frame after frame only the tensors differ.

A client that keeps asking sends the same JSON in front of other data, or about the same places in
shared memory. What it says is read and checked against the model once, and kept by its bytes.
"""

from collections.abc import Mapping
from typing import Any

from agent.errors import BadInput
from agent.protocol import oip, oip_requests
from agent.protocol.oip import InferRequest
from agent.protocol.oip_requests import Said
from agent.serving.question import LENGTH, Question
from agent.serving.runtime import Model

_MOST_KEPT = 256
_MOST_KEPT_BYTES = 2048


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
