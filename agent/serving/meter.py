"""Counts what each variant did, as deltas that repeat until they are acknowledged (no I/O).

Only the event loop touches these: what a worker thread measures comes back with its result.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from agent.protocol import sketch
from agent.protocol.sketch import Quantiles, Sketch

_FOLD = 4096


class Key(NamedTuple):
    """What is counted apart: one file under one name and version."""

    name: str
    version: int
    sha256: str


@dataclass(frozen=True)
class Counts:
    """One variant over one interval. Failures are among the requests; latencies are not theirs."""

    requests: int = 0
    failures: int = 0
    busy_s: float = 0.0
    latency_ms: Quantiles = field(default_factory=Quantiles)

    def plus(self, other: "Counts") -> "Counts":
        """Both intervals as one."""
        return Counts(
            self.requests + other.requests,
            self.failures + other.failures,
            self.busy_s + other.busy_s,
            sketch.merged((self.latency_ms, other.latency_ms)),
        )


class Meter:
    """What one variant did since it was last taken."""

    def __init__(self) -> None:
        self._failures = 0
        self._busy_s = 0.0
        self._folded = Sketch()
        # A sketch costs microseconds per value, a list nanoseconds: fold them in bulk.
        self._latencies_ms: list[float] = []

    def succeeded(self, *, latency_ms: float, busy_s: float) -> None:
        """Count a request that was answered: the whole time in here, and that in the model."""
        self._busy_s += busy_s
        self._latencies_ms.append(latency_ms)
        if len(self._latencies_ms) >= _FOLD:
            self._fold()

    def failed(self) -> None:
        """Count a request that was not answered with outputs."""
        self._failures += 1

    def take(self) -> Counts:
        """Everything since the last time, which begins anew."""
        self._fold()
        taken = Counts(
            int(self._folded.count) + self._failures,
            self._failures,
            self._busy_s,
            self._folded.freeze(),
        )
        self._failures, self._busy_s, self._folded = 0, 0.0, Sketch()
        return taken

    def _fold(self) -> None:
        for latency_ms in self._latencies_ms:
            self._folded.add(latency_ms)
        self._latencies_ms.clear()


class Ledger:
    """The meters of all variants, and what of theirs has not been acknowledged.

    One reader polls: it counts each status that it receives once, and acknowledges that one in
    its next poll. A reply that is lost loses nothing, because the next one holds it too.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._meters: dict[Key, Meter] = {}
        self._offered: dict[Key, Counts] = {}

    def meter(self, key: Key) -> Meter:
        """The meter of one variant; the same one when it is loaded again."""
        return self._meters.setdefault(key, Meter())

    def poll(self, *, acknowledged: int, live: frozenset[Key]) -> tuple[int, dict[Key, Counts]]:
        """The next sequence number and the counts since the acknowledged one.

        Variants that are not `live` are forgotten once their last counts are acknowledged.
        """
        if acknowledged == self._sequence:
            self._offered = {}
        for key, meter in list(self._meters.items()):
            self._offered[key] = self._offered.get(key, Counts()).plus(meter.take())
            if key not in live:
                del self._meters[key]
        self._sequence += 1
        return self._sequence, dict(self._offered)
