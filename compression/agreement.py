"""How alike a candidate and the original answer, by what their outputs mean (numpy only).

| kind | one sample's score in [0, 1] | interval |
| --- | --- | --- |
| logits | share of rows with the same largest class | Wilson |
| steps | share of steps with the same class, among those where either is not blank | bootstrap |
| score | share of values on the same side of the threshold | Wilson |
| mask | intersection over union: over the threshold, or classes along `axis` | bootstrap |
| embedding | same nearest neighbour; with fewer than 8 samples the cosine | Wilson |
| tensor, state, detections | S / (S + E): signal in signal plus error power | bootstrap |

S / (S + E) is .990 at an SQNR of 20 dB and .999 at 30 dB. Detections are judged as plain tensors,
because nothing says how boxes are laid out.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.job import Agreement, OutputKind, OutputSpec, Split

Array = NDArray[Any]
EXACT_DB = 200.0
NEIGHBOURS_FROM = 8
NEIGHBOURS_MOST = 512
_MEANT: frozenset[OutputKind] = frozenset({"logits", "steps", "score", "mask", "embedding"})
_Z95 = NormalDist().inv_cdf(0.975)


def powers(original: Array, candidate: Array) -> tuple[float, float]:
    """Signal and error power (sums of squares); an answer that cannot be compared is all error."""
    a = np.asarray(original, np.float64)
    signal = float(np.square(a, where=np.isfinite(a), out=np.zeros_like(a)).sum())
    if np.shape(original) != np.shape(candidate):
        return signal, max(signal, 1.0) * 1e20
    b = np.asarray(candidate, np.float64)
    # Infinities in the same places are equal; elsewhere they are an error without bound.
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = np.where(same, 0.0, np.subtract(a, b, where=~same, out=np.zeros_like(a)))
    if not np.isfinite(difference).all():
        return signal, max(signal, 1.0) * 1e20
    return signal, float(np.square(difference).sum())


def sqnr_db(signal: float, error: float) -> float:
    """Signal to quantization noise ratio, 10 log10(S / E), within -200 and 200 dB."""
    if error == 0.0:
        return EXACT_DB
    if signal == 0.0:
        return -EXACT_DB
    return float(np.clip(10.0 * np.log10(signal / error), -EXACT_DB, EXACT_DB))


def _logits(spec: OutputSpec, a: Array, b: Array) -> float:
    axis = -1 if spec.axis is None else spec.axis
    return float((_largest(a, axis) == _largest(b, axis)).mean())


def _steps(spec: OutputSpec, a: Array, b: Array) -> float:
    axis = -1 if spec.axis is None else spec.axis
    ours, theirs = _largest(a, axis), _largest(b, axis)
    counted = np.ones(ours.shape, bool)
    if spec.blank is not None:
        counted = (ours != spec.blank) | (theirs != spec.blank)
    return float((ours == theirs)[counted].mean()) if counted.any() else 1.0


def _score(spec: OutputSpec, a: Array, b: Array) -> float:
    threshold = 0.5 if spec.threshold is None else spec.threshold
    return float(((a >= threshold) == (b >= threshold)).mean())


def _mask(spec: OutputSpec, a: Array, b: Array) -> float:
    if spec.axis is None:
        threshold = 0.5 if spec.threshold is None else spec.threshold
        return _iou(a >= threshold, b >= threshold)
    ours, theirs = _largest(a, spec.axis), _largest(b, spec.axis)
    classes = np.union1d(ours, theirs)
    return float(np.mean([_iou(ours == one, theirs == one) for one in classes]))


def _cosine(spec: OutputSpec, a: Array, b: Array) -> float:
    del spec
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / norm, 0.0, 1.0)) if norm else float(np.array_equal(x, y))


def _signal_share(spec: OutputSpec, a: Array, b: Array) -> float:
    del spec
    signal, error = powers(a, b)
    return signal / (signal + error) if error else 1.0


RULES: dict[OutputKind, Callable[[OutputSpec, Array, Array], float]] = {
    "logits": _logits,
    "steps": _steps,
    "score": _score,
    "mask": _mask,
    "embedding": _cosine,
    "tensor": _signal_share,
    "state": _signal_share,
    "detections": _signal_share,
}


def score(spec: OutputSpec, original: Array, candidate: Array) -> float:
    """One sample's score in [0, 1]; 0 where shapes differ or the candidate alone is not finite."""
    if original.shape != candidate.shape:
        return 0.0
    if np.isfinite(original).all() and not np.isfinite(candidate).all():
        return 0.0
    return RULES[spec.kind](spec, original, candidate)


class Judge:
    """Gathers outputs sample by sample: one number per sample, two sums per output.

    Only embeddings are kept (at most 512), because a neighbour needs all of them.
    """

    def __init__(self, outputs: Sequence[OutputSpec]) -> None:
        self._outputs = {spec.name: spec for spec in outputs}
        self._scores: dict[str, list[float]] = {name: [] for name in self._outputs}
        self._powers = dict.fromkeys(self._outputs, (0.0, 0.0))
        self._vectors: dict[str, list[tuple[Array, Array]]] = {name: [] for name in self._outputs}
        self.samples = 0

    def add(self, original: Mapping[str, Array], candidate: Mapping[str, Array]) -> None:
        """Compare the outputs of one sample, by name."""
        self.samples += 1
        for name, spec in self._outputs.items():
            a, b = np.asarray(original[name]), np.asarray(candidate[name])
            self._scores[name].append(score(spec, a, b))
            signal, error = powers(a, b)
            before = self._powers[name]
            self._powers[name] = before[0] + signal, before[1] + error
            comparable = a.shape == b.shape and bool(np.isfinite(b).all())
            if spec.kind == "embedding" and comparable and self.samples <= NEIGHBOURS_MOST:
                self._vectors[name].append((a.ravel(), b.ravel()))

    def sqnr_db(self) -> dict[str, float]:
        """Per output, over all samples; 200 stands for exactly equal."""
        return {name: sqnr_db(*both) for name, both in self._powers.items()}

    def agreement(self, split: Split, *, guessed: bool = False) -> Agreement:
        """The output that agrees least, among those whose meaning is known (else among all)."""
        meant = [spec for spec in self._outputs.values() if spec.kind in _MEANT]
        judged = [self._one(spec, split, guessed) for spec in meant or self._outputs.values()]
        return min(judged, key=lambda one: one.value)

    def _one(self, spec: OutputSpec, split: Split, guessed: bool) -> Agreement:
        scores = np.array(self._scores[spec.name])
        vectors = self._vectors[spec.name]
        if spec.kind == "embedding" and len(vectors) == len(scores) >= NEIGHBOURS_FROM:
            scores = _same_neighbours(vectors)
        low, high = interval(scores)
        return Agreement(
            value=float(scores.mean()), low=low, high=high, kind=spec.kind, output=spec.name,
            samples=len(scores), split=split, guessed=guessed,
        )  # fmt: skip


def interval(scores: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean: Wilson (1927) for yes-or-no scores, else a seeded bootstrap."""
    count, mean = len(scores), float(scores.mean())
    if np.isin(scores, (0.0, 1.0)).all():
        square = _Z95**2
        centre = (mean + square / (2 * count)) / (1 + square / count)
        spread = mean * (1 - mean) / count + square / (4 * count**2)
        half = _Z95 * float(np.sqrt(spread)) / (1 + square / count)
        return max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))
    rng = np.random.default_rng(0)
    means = [float(scores[rng.integers(0, count, count)].mean()) for _ in range(1000)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.clip(min(low, mean), 0, 1)), float(np.clip(max(high, mean), 0, 1))


def _largest(array: Array, axis: int) -> NDArray[np.intp]:
    return np.asarray(np.argmax(array, axis=axis))


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _same_neighbours(vectors: list[tuple[Array, Array]]) -> NDArray[np.float64]:
    nearest = []
    for side in (0, 1):
        rows = np.stack([pair[side] for pair in vectors]).astype(np.float64)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(cosines.argmax(axis=1))
    same: NDArray[np.float64] = (nearest[0] == nearest[1]).astype(np.float64)
    return same
