"""What the server is to have loaded, and which load each index on the crash page stands for."""

import itertools
from collections.abc import Iterable, Iterator

from agent.protocol.private import LoadRequest

_INDEXES = 65_535
_RECENT = 64


class Wanted:
    """Load requests by name, and every recent one by its index."""

    def __init__(self) -> None:
        self._wanted: dict[str, LoadRequest] = {}
        self._asked: dict[int, LoadRequest] = {}
        self._indexes = itertools.cycle(range(1, _INDEXES + 1))

    def __iter__(self) -> Iterator[LoadRequest]:
        return iter(self._wanted.values())

    def names(self) -> list[str]:
        """The names, which may change while they are gone through."""
        return list(self._wanted)

    def get(self, name: str) -> LoadRequest | None:
        """What is wanted under a name."""
        return self._wanted.get(name)

    def ask(self, request: LoadRequest) -> LoadRequest:
        """Give a load that is about to be tried an index of its own."""
        asked = request.model_copy(update={"index": next(self._indexes)})
        self._asked[asked.index] = asked
        current = {each.index for each in self._wanted.values()}
        # The newest indexes may belong to loads that are under way.
        for index in sorted(self._asked)[:-_RECENT]:
            if index not in current:
                del self._asked[index]
        return asked

    def asked(self, indexes: Iterable[int]) -> list[LoadRequest]:
        """The loads that indexes stand for, where they are still known."""
        return [self._asked[index] for index in indexes if index in self._asked]

    def keep(self, asked: LoadRequest) -> None:
        """It is loaded: from now on it is loaded again after each restart."""
        self._wanted[asked.name] = asked

    def drop(self, name: str) -> LoadRequest | None:
        """Not any more; what was wanted."""
        return self._wanted.pop(name, None)
