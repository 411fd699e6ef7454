"""What goes over the link and what the broker says to it; no client library in sight."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class Message:
    """One message from the broker. `retain`: it was stored before we subscribed."""

    topic: str
    payload: bytes
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    acknowledge: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    """Tells the broker that it need not be sent again; the link calls it once the handler has
    returned, unless the handler was subscribed as `late`."""


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when we are gone without a goodbye."""

    topic: str
    payload: bytes


Handler = Callable[[Message], None]


class Code(NamedTuple):
    """One reason code of an acknowledgement (MQTT 5, 2.4)."""

    value: int
    text: str

    @property
    def is_failure(self) -> bool:
        """Whether the broker said no."""
        return self.value >= 0x80

    @property
    def is_final(self) -> bool:
        """Whether the same message would get the same answer again: not authorized, a topic
        name or a payload that is invalid (MQTT 5, 3.4.2.1)."""
        return self.value in {0x87, 0x90, 0x99}

    def __str__(self) -> str:
        return f"'{self.text}' (0x{self.value:02X})"


@dataclass(frozen=True)
class Hears:
    """What a connection tells, always on the event loop."""

    up: Callable[[bool, int | None], None]
    """Connected: whether the session was resumed, and the broker's Maximum Packet Size."""
    down: Callable[[str, bool], None]
    """Not connected any more: why, and whether somebody took our session over."""
    message: Callable[[Message], None]
    published: Callable[[int, tuple[Code, ...]], None]
    subscribed: Callable[[int, tuple[Code, ...]], None]
