"""Which filters are subscribed, who hears what comes under them, and which outlive a connection."""

from collections.abc import Sequence

from agent.link import connection
from agent.link.messages import Handler, Message

FILTERS_PER_SUBSCRIBE = 8
"""AWS IoT Core takes no more in one packet."""


class Subscriptions:
    """Filters and their handlers. Standing ones are subscribed again on every connect."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._standing: dict[str, None] = {}
        self._late: set[str] = set()

    @property
    def standing(self) -> tuple[str, ...]:
        """The filters that every new connection needs."""
        return tuple(self._standing)

    def add(
        self,
        filters: Sequence[str],
        handler: Handler,
        *,
        standing: bool = False,
        late: bool = False,
    ) -> None:
        """Let `handler` hear what comes under `filters`; `late`: it acknowledges by itself."""
        self._handlers |= dict.fromkeys(filters, handler)
        if standing:
            self._standing |= dict.fromkeys(filters)
        if late:
            self._late |= set(filters)

    def drop(self, filters: Sequence[str]) -> None:
        """Hear nothing more of these."""
        for each in filters:
            self._handlers.pop(each, None)
            self._standing.pop(each, None)
            self._late.discard(each)

    def deliver(self, message: Message) -> None:
        """Hand one message to its handler, and acknowledge it unless the handler will."""
        under = self._filter_of(message.topic)
        if under is None:
            message.acknowledge()
            return
        late = under in self._late
        try:
            self._handlers[under](message)
        finally:
            if not late:
                message.acknowledge()

    def _filter_of(self, topic: str) -> str | None:
        if topic in self._handlers:
            return topic
        return next((each for each in self._handlers if connection.matches(each, topic)), None)


def by_eights(filters: Sequence[str]) -> list[list[str]]:
    """Filters in parts that one SUBSCRIBE may have."""
    return [
        list(filters[at : at + FILTERS_PER_SUBSCRIBE])
        for at in range(0, len(filters), FILTERS_PER_SUBSCRIBE)
    ]
