"""What a connection was asked last, so that the same question need not be read again.

A client in a loop sends the same head and the same JSON, and only the tensors behind them differ;
so do the answers. What is the same is compared as bytes and sent as bytes.
"""

from typing import NamedTuple

from agent.serving import answers
from agent.serving.api import Answer, Rote
from agent.serving.heads import Head


class Again(NamedTuple):
    """A request that was answered, and all that can be used of it for the next one."""

    said: bytes
    """What the request began with: its head and its JSON."""
    length: int
    """Of the whole request, in bytes."""
    told: bytes
    """What the answer began with, likewise."""
    rote: Rote
    head: Head

    def asks(self, data: bytes) -> bool:
        """Whether `data` is this request, but for its tensors."""
        return len(data) == self.length and data.startswith(self.said)


def learn(data: bytes, head: Head, answer: Answer) -> Again | None:
    """Remember a whole request, its head and its answer, where it can be answered by rote."""
    if answer.rote is None or not head.keeps:
        return None
    tensors = 0 if head.json_bytes is None else head.length - head.json_bytes
    written = answers.write(answer, head, keep=True)
    if not isinstance(written, bytes):  # so long that it goes out in parts
        return None
    made = sum(map(len, answer.parts[1:]))
    said, told = data[: len(data) - tensors], written[: len(written) - made]
    return Again(said, len(data), told, answer.rote, head)
