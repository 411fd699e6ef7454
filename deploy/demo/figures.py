"""What the answers say, in numbers (pure): agreement, accuracy, latency, energy."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.protocol.events import Telemetry
from agent.protocol.sketch import Quantiles, merged

_Z95 = 1.959964


@dataclass(frozen=True)
class Proportion:
    """`hits` of `count`, with its 95 % interval."""

    hits: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """hits / count."""
        return self.hits / self.count


def proportion(truths: Iterable[bool]) -> Proportion:
    """The share of truths, with Wilson's 95 % interval (Wilson, JASA 22:158, 1927).

    Raises:
        ValueError: nothing was counted.
    """
    counted = [bool(truth) for truth in truths]
    n = len(counted)
    if not n:
        raise ValueError("cannot give the share of no cases")
    hits = sum(counted)
    share, z2 = hits / n, _Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Proportion(hits, n, max(0.0, middle - half), min(1.0, middle + half))


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share `q` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


@dataclass(frozen=True)
class KindRow:
    """One file extension: how many files, and how many each model named rightly."""

    extension: str
    count: int
    hits: tuple[int, ...]


def right(
    predicted: Sequence[str], extensions: Sequence[str], meanings: Mapping[str, Collection[str]]
) -> list[bool]:
    """For each file whether the predicted label is one that its extension stands for."""
    return [
        label in meanings[extension] for label, extension in zip(predicted, extensions, strict=True)
    ]


def by_extension(
    extensions: Sequence[str], rights: Sequence[Sequence[bool]], *, most: int = 10
) -> list[KindRow]:
    """The `most` commonest extensions; `rights` has one list for each model."""
    commonest = sorted(Counter(extensions).items(), key=lambda item: (-item[1], item[0]))[:most]
    return [
        KindRow(
            extension,
            count,
            tuple(
                sum(ok for ok, which in zip(one, extensions, strict=True) if which == extension)
                for one in rights
            ),
        )
        for extension, count in commonest
    ]


@dataclass(frozen=True)
class Served:
    """What the agent itself reported of one file that it served."""

    requests: int
    failures: int
    latency_ms: Quantiles
    cpu_ms_per_inference: float | None
    joules_per_inference: float | None
    energy_method: str


def served(batches: Iterable[Telemetry], *, model: str, sha256: str) -> Served:
    """Add up the telemetry of one variant of one model; a batch that came twice counts once."""
    unique = {batch.sequence: batch for batch in batches}
    parts = [
        part
        for batch in unique.values()
        for part in batch.models
        if (part.name, part.sha256) == (model, sha256)
    ]
    requests = sum(part.requests for part in parts)
    joules = [part.joules for part in parts]
    known = [value for value in joules if value is not None]
    whole = bool(requests) and len(known) == len(joules)
    return Served(
        requests=requests,
        failures=sum(part.failures for part in parts),
        latency_ms=merged(part.latency_ms for part in parts),
        cpu_ms_per_inference=(
            1000 * sum(part.cpu_seconds for part in parts) / requests if requests else None
        ),
        joules_per_inference=sum(known) / requests if whole else None,
        energy_method=next((part.energy_method for part in parts if part.energy_method), ""),
    )
