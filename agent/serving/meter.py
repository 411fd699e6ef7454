"""Counts what each variant did, as deltas that repeat until they are acknowledged (no I/O).

Only the event loop touches these: what a worker thread measures comes back with its result.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from agent.protocol import sketch
from agent.protocol.sketch import Quantiles, Sketch

_FOLD = 4 * 1024


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


class Times(NamedTuple):
    """Where one request's time went, in nanoseconds."""

    decode: int = 0
    queue: int = 0
    run: int = 0
    encode: int = 0


_NO_TIME = Times()


@dataclass(frozen=True)
class Totals:
    """One variant since it was first loaded; durations in nanoseconds."""

    answered: int = 0
    failed: int = 0
    times: Times = _NO_TIME
    failed_ns: int = 0
    last_ns: int = 0
    """When it last answered, by time.perf_counter_ns()."""


class Meter:
    """What one variant did, in all and since it was last taken."""

    def __init__(self) -> None:
        self._totals = Totals()
        self._taken = Totals()
        self._failed = 0
        self._failed_ns = 0
        self._last_ns = 0
        self._latency_ms = Sketch()
        # A sketch costs microseconds per value, a list nanoseconds: fold them in bulk.
        self._times: list[int] = []

    def succeeded(self, times: tuple[int, int, int, int], *, at_ns: int) -> None:
        """Count a request that was answered: its Times; `at_ns` is time.perf_counter_ns()."""
        self._last_ns = at_ns
        self._times += times
        if len(self._times) >= _FOLD:
            self._fold()

    def failed(self, ns: int) -> None:
        """Count a request that was not answered with outputs, after so long."""
        self._failed += 1
        self._failed_ns += ns

    def totals(self) -> Totals:
        """Everything since the variant was first loaded."""
        self._fold()
        return self._totals

    def take(self) -> Counts:
        """Everything since the last time, which begins anew."""
        now, before = self.totals(), self._taken
        failures = now.failed - before.failed
        taken = Counts(
            requests=now.answered - before.answered + failures,
            failures=failures,
            busy_s=(now.times.run - before.times.run) / 1e9,
            latency_ms=self._latency_ms.freeze(),
        )
        self._taken, self._latency_ms = now, Sketch()
        return taken

    def _fold(self) -> None:
        rows = np.array(self._times, np.int64).reshape(-1, len(Times._fields))
        self._times.clear()
        # To 8 bits, well within the sketch's own error: then few values differ.
        mantissa, exponent = np.frexp(rows.sum(axis=1) / 1e6)
        rounded = np.ldexp(np.rint(mantissa * 256), exponent - 8)
        for value, count in zip(*np.unique(rounded, return_counts=True), strict=True):
            self._latency_ms.add(float(value), float(count))
        before = self._totals
        self._totals = Totals(
            answered=before.answered + len(rows),
            failed=self._failed,
            times=Times(*(a + int(b) for a, b in zip(before.times, rows.sum(axis=0), strict=True))),
            failed_ns=self._failed_ns,
            last_ns=self._last_ns,
        )


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
