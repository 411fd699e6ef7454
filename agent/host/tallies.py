"""What each variant did since the agent started, added up across restarts of the server."""

from dataclasses import dataclass, field

from agent.protocol.private import ServerStatus
from agent.protocol.sketch import Quantiles, Sketch

_MOST = 64


@dataclass
class Tally:
    """The counters of one variant."""

    requests: int = 0
    failures: int = 0
    _latency_ms: Sketch = field(default_factory=Sketch)

    def add(self, requests: int, failures: int, latency_ms: Quantiles) -> None:
        """Add one status' counters."""
        self.requests += requests
        self.failures += failures
        if latency_ms.count:
            self._latency_ms.merge(Sketch.thaw(latency_ms))

    @property
    def latency_ms(self) -> Quantiles:
        """Of what was answered."""
        return self._latency_ms.freeze()


class Tallies:
    """Tallies by name and sha256; of the variants that were quiet the longest, none."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}

    def add(self, status: ServerStatus) -> None:
        """Add up one status, which is told once."""
        for model in status.models:
            key = (model.name, model.sha256)
            tally = self._tallies.pop(key, None) or Tally()
            self._tallies[key] = tally  # the newest last
            tally.add(model.requests, model.failures, model.latency_ms)
        for key in list(self._tallies)[:-_MOST]:
            del self._tallies[key]

    def of(self, name: str, sha256: str) -> Tally:
        """One variant's tally; empty where it never served."""
        return self._tallies.get((name, sha256)) or Tally()
