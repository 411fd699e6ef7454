"""What handlers work on: the models, and what clients are allowed."""

from dataclasses import dataclass

from agent.serving.slot import Slots


@dataclass(frozen=True)
class Service:
    """One server's models and permissions."""

    slots: Slots
    model_control: bool = False
    """Whether clients may unload what is served and load it again."""
