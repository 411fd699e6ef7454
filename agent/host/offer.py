"""What the server offers its clients beyond inference, as the configuration allows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Offer:
    """Everything is off that lets clients do more than ask."""

    shared_memory: bool = False
    """Clients may register system shared memory. Only trusted ones: they can crash the server."""
    model_control: bool = False
    """Clients may unload what is served, and load it again."""
    most_waiting: int | None = None
    """Requests that may wait for one model; None: the server's own default."""

    @property
    def arguments(self) -> list[str]:
        """As arguments of the server."""
        said = {"--shared-memory": self.shared_memory, "--model-control": self.model_control}
        waiting = [] if self.most_waiting is None else ["--most-waiting", str(self.most_waiting)]
        return [*(name for name, on in said.items() if on), *waiting]


INFERENCE = Offer()
"""Nothing beyond it."""
