"""What a variant knows of questions that it was asked before, and memory that is bound for them."""

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from agent.serving.runs import Prepared
from agent.serving.shared_memory import Region

_MOST_PREPARED = 64


class Spoken(Protocol):
    """How to answer a question whose data stand in its JSON (spoken.py)."""

    def answer(self, data: Sequence[Any], began_ns: int) -> list[bytes] | None:
        """The body of the answer for the data of its inputs; None: ask the usual way."""

    def again(self, data: bytes) -> bytes | None:
        """As `answer`, for the data of its only input as they stand in JSON."""


class Known:
    """Of one variant, until it is freed."""

    def __init__(self) -> None:
        self.prepared: dict[Hashable, Prepared] = {}
        self.spoken: dict[bytes, Spoken | None] = {}
        """By what requests say in JSON besides their data; None: heard once."""

    def keep(self, key: Hashable, prepared: Prepared) -> None:
        """Keep a binding for requests of the same key."""
        while len(self.prepared) >= _MOST_PREPARED:
            self.prepared.pop(next(iter(self.prepared))).let_go()
        self.prepared[key] = prepared

    def forget(self, region: Region) -> None:
        """Drop what is bound to a region."""
        for key, prepared in list(self.prepared.items()):
            if region in prepared.regions:
                self.prepared.pop(key).let_go()

    def let_go(self) -> None:
        """Drop everything."""
        for prepared in self.prepared.values():
            prepared.let_go()
        self.prepared.clear()
        self.spoken.clear()
