"""What handlers work on: the models, and what clients are allowed."""

from dataclasses import dataclass

from agent.serving.faults import Forbidden
from agent.serving.shared_memory import Regions
from agent.serving.slot import Slots


@dataclass(frozen=True)
class Service:
    """One server's models and permissions."""

    slots: Slots
    shared: Regions | None = None
    """None: clients may not share memory with the server."""
    model_control: bool = False
    """Whether clients may unload what is served, and load it again."""

    @property
    def regions(self) -> Regions:
        """The registered regions of shared memory.

        Raises:
            Forbidden: clients may not share memory here.
        """
        if self.shared is None:
            raise Forbidden("cannot use shared memory: it is not allowed here")
        return self.shared

    def allow_model_control(self) -> None:
        """Check that clients may load and unload.

        Raises:
            Forbidden: they may not.
        """
        if not self.model_control:
            raise Forbidden("cannot load or unload: clients are not allowed to here")
