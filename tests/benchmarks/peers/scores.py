"""What each sample adds to agreement and to the user's metric, and paired bootstraps over them.

The rules are the project's own (compression.alike), so that peers are judged as our rungs are;
here the shares of single samples are kept, because two variants are compared sample by sample.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression import agreement
from compression.alike import classes, detections, metrics, numbers, roles, steps, vectors
from compression.alike.labels import RULES as METRICS
from compression.job import OutputSpec

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Shares = NDArray[np.float64]
RESAMPLED = 2000
METRIC_OF_SCORES = "auc"


@dataclass
class Tally:
    """Of one variant: per sample what agrees and of how much, and the same of each metric."""

    agreeing: list[tuple[float, float]] = field(default_factory=list)
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    points: list[tuple[float, float]] = field(default_factory=list)
    """Label and score, where the metric is of an order."""
    powers: list[tuple[float, float]] = field(default_factory=list)
    vectors: list[tuple[Array, Array]] = field(default_factory=list)

    def add(
        self, specs: Sequence[OutputSpec], original: Arrays, found: Arrays, label: Array | None
    ) -> None:
        """Count one sample of a variant's outputs beside the original's."""
        spec = main(specs)
        a, b = np.asarray(original[spec.name]), np.asarray(found[spec.name])
        sound = agreement.sound(a, b)
        self.powers.append(numbers.powers(a, b))
        if spec.kind == "embedding":
            self.vectors.append((a.ravel(), b.ravel() if sound else np.full(a.size, np.nan)))
        else:
            self.agreeing.append(_share(spec, specs, original, found, sound=sound))
        if label is None:
            return
        if spec.kind == "score" and sound:
            self.points += zip(label.ravel().tolist(), b.ravel().tolist(), strict=True)
        for name, rule in METRICS.get(spec.kind, {}).items():
            right = rule(spec, b, label) if sound else rule(spec, a, label)
            if right is not None:
                kept = right if sound else (0.0, right[1])
                self.metrics.setdefault(name, []).append(kept)

    def shares(self) -> Shares:
        """What agrees and of how much, [samples, 2]."""
        if not self.vectors:
            return np.array(self.agreeing, np.float64).reshape(-1, 2)
        ours, theirs = (np.stack([pair[side] for pair in self.vectors]) for side in (0, 1))
        same = vectors.same_neighbours(ours, theirs)
        return np.stack([same.astype(np.float64), np.ones(len(same))], axis=1)

    def sqnr_db(self) -> float:
        """Of the judged output, over all samples."""
        return numbers.sqnr_db(*np.sum(self.powers, axis=0).tolist())

    def metric_values(self) -> dict[str, float]:
        """The user's metrics over all samples."""
        found = {name: metrics.ratio(np.array(each)) for name, each in self.metrics.items()}
        if self.points:
            labels, values = np.array(self.points).T
            area = metrics.auc(values, labels)
            found |= {} if area is None else {METRIC_OF_SCORES: area}
        return found

    def save(self, path: Path) -> None:
        """Keep it as an .npz."""
        arrays: dict[str, Array] = {"agreeing": self.shares(), "powers": np.array(self.powers)}
        arrays |= {f"metric {name}": np.array(each) for name, each in self.metrics.items()}
        arrays |= {"points": np.array(self.points)} if self.points else {}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # names are not keywords

    @classmethod
    def load(cls, path: Path) -> "Tally":
        """Read what `save` wrote."""
        found = cls()
        with np.load(path, allow_pickle=False) as arrays:
            found.agreeing = list(map(tuple, arrays["agreeing"].tolist()))
            found.powers = list(map(tuple, arrays["powers"].tolist()))
            for name in arrays.files:
                if name.startswith("metric "):
                    pairs = list(map(tuple, arrays[name].tolist()))
                    found.metrics[name.removeprefix("metric ")] = pairs
                if name == "points":
                    found.points = list(map(tuple, arrays[name].tolist()))
        return found


def main(specs: Sequence[OutputSpec]) -> OutputSpec:
    """The output that is judged: the first whose meaning is known."""
    return next((spec for spec in specs if spec.kind not in {"tensor", "state"}), specs[0])


def _share(
    spec: OutputSpec, specs: Sequence[OutputSpec], a: Arrays, b: Arrays, *, sound: bool
) -> tuple[float, float]:
    one, other = np.asarray(a[spec.name]), np.asarray(b[spec.name])
    if spec.kind == "detections":
        found = roles.resolve([each for each in specs if each.kind == "detections"], a)
        assert found is not None
        hits, ours, theirs = detections.f1(found, a, b)
        return 2.0 * hits, float(ours + theirs)
    if spec.kind == "steps":
        ours = classes.answers(spec, one)
        if not sound:
            return 0.0, max(1.0, float((ours != spec.blank).sum()))
        same = classes.same(spec, one, other)
        right, of = steps.counted(same, ours, classes.answers(spec, other), spec.blank)
        return float(right), float(of)
    return (agreement.RULES[spec.kind](spec, one, other) if sound else 0.0), 1.0


def grouped(shares: Shares, sources: Sequence[int] | None) -> Shares:
    """Shares summed by source: samples of one source vary together and are drawn together."""
    if sources is None:
        return shares
    _, place = np.unique(np.asarray(sources)[: len(shares)], return_inverse=True)
    found = np.zeros((int(place.max()) + 1, 2))
    np.add.at(found, place, shares)
    return found


def difference(
    ours: Shares, theirs: Shares, *, sources: Sequence[int] | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """ours - theirs of the ratio of sums, with its 95 % interval by paired bootstrap.

    Both are shares [samples, 2] of the same samples; a sample that is drawn is drawn for both
    (Efron and Tibshirani 1993, chapter 8). The seed makes it repeatable.
    """
    a, b = grouped(ours, sources), grouped(theirs, sources)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLED):
        drawn = np.bincount(rng.integers(0, len(a), len(a)), minlength=len(a)).astype(np.float64)
        found.append(_ratio(drawn @ a) - _ratio(drawn @ b))
    value = _ratio(a.sum(axis=0)) - _ratio(b.sum(axis=0))
    low, high = np.quantile(found, (0.025, 0.975))
    return value, min(float(low), value), max(float(high), value)


def _ratio(sums: Array) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 1.0
