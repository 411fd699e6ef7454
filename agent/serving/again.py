"""What a connection was asked last, so that the same question need not be read again.

A client in a loop sends the same head and the same JSON, and only the tensors behind them differ;
so do the answers. What is the same is compared as bytes and sent as bytes. Where the one tensor
stands in the JSON, that parts in two around it, and the head at the length that it says.
"""

import re
from typing import NamedTuple, Protocol

from agent.serving import answers
from agent.serving.api import Answer, Came, Pending, Rote
from agent.serving.heads import Head
from agent.serving.known import Spoken
from agent.serving.outlet import Outlet

_MOST_DIGITS = 6
"""Of the length of a document, and the line's end: a longer one is read the usual way."""
_SAID = re.compile(rb"\r\ncontent-length: ?([1-9]\d*)(?=\r\n)", re.IGNORECASE)
_DATA = b'"data"'
_GIVEN = re.compile(_DATA + rb"\s*:\s*(\[[^][\"]*\])")


class Again(Protocol):
    """A request that was answered, and all that can be used of it for the next one."""

    @property
    def head(self) -> Head:
        """Its head."""

    def asks(self, data: bytes) -> bool:
        """Whether `data` is this request, but for its tensors, and may wait for a thread."""

    def answer(self, data: bytes) -> bytes | None:
        """The answer, if `data` is this request but for its tensors; None: not at once."""

    def later(self, data: bytes, outlet: Outlet | None, came: Came) -> Pending | None:
        """As `answer`, of what `asks`, on the model's thread; as Rote.later."""


class Binary(NamedTuple):
    """Its tensors stand behind its JSON, or in shared memory."""

    said: bytes
    """What the request began with: its head and its JSON."""
    length: int
    """Of the whole request, in bytes."""
    told: bytes
    """What the answer began with, likewise."""
    rote: Rote
    head: Head

    def asks(self, data: bytes) -> bool:
        """As Again."""
        return len(data) == self.length and data.startswith(self.said)

    def answer(self, data: bytes) -> bytes | None:
        """As Again."""
        # What `asks` says, without a call: this is the way of microseconds.
        if len(data) != self.length or not data.startswith(self.said):
            return None
        return self.rote.answer(self.told, data, len(self.said))

    def later(self, data: bytes, outlet: Outlet | None, came: Came) -> Pending | None:
        """As Again."""
        return self.rote.later(self.told, data, len(self.said), outlet, came)


class InJson(NamedTuple):
    """The tensor stands in its JSON, and how long that is in its head."""

    before: bytes
    """The head, as far as it says the length."""
    behind: bytes
    """The rest of the head, and the JSON as far as it gives the data."""
    last: bytes
    """What stands behind them."""
    head_bytes: int
    """Of `behind`: those of the head."""
    told: bytes
    """The head of the answer, as far as it says the length."""
    spoken: Spoken
    head: Head

    def asks(self, data: bytes) -> bool:
        """As Again: it is answered at once or not at all."""
        del data
        return False

    def answer(self, data: bytes) -> bytes | None:
        """As Again. The data in their brackets are JSON by themselves, and so is then all of it."""
        before, behind, last, head_bytes, told, spoken, _ = self
        if not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r", at, at + _MOST_DIGITS)
        digits = data[at:end]
        if end < 0 or not digits.isdigit() or int(digits) != len(data) - end - head_bytes:
            return None
        if not (data.startswith(behind, end) and data.endswith(last)):
            return None
        parts = spoken.again(data[end + len(behind) : len(data) - len(last)])
        return parts and b"%b%d\r\n\r\n%b" % (told, len(parts), parts)

    def later(self, data: bytes, outlet: Outlet | None, came: Came) -> Pending | None:
        """As Again."""
        del data, outlet, came
        return None


def learn(data: bytes, head: Head, answer: Answer) -> Again | None:
    """Remember a whole request, its head and its answer, where it can be answered by rote."""
    if not head.keeps:
        return None
    if answer.spoken is not None:
        return _in_json(data, head, answer.spoken)
    if answer.rote is None:
        return None
    tensors = 0 if head.json_bytes is None else head.length - head.json_bytes
    written = answers.write(answer, head, keep=True)
    if not isinstance(written, bytes):  # so long that it goes out in parts
        return None
    made = sum(map(len, answer.parts[1:]))
    said, told = data[: len(data) - tensors], written[: len(written) - made]
    return Binary(said, len(data), told, answer.rote, head)


def _in_json(data: bytes, head: Head, spoken: Spoken) -> InJson | None:
    """Part a request at the length that it says and at its data, where that is plain."""
    begins = len(data) - head.length
    said = _SAID.search(data, 0, begins)
    given = _GIVEN.search(data, begins)
    # Without escapes a name is spelt in one way: then this is the only one, and a name.
    plain = data.count(_DATA, begins) == 1 and data.find(b"\\", begins) < 0
    if head.old or said is None or given is None or not plain:
        return None
    ends, opens, closes = said.end(), *given.span(1)
    told = answers.start(200, Answer(200, ()).content_type)
    return InJson(
        data[: said.start(1)], data[ends:opens], data[closes:], begins - ends, told, spoken, head
    )
