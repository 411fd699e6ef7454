"""Ranges where no inputs came: what the model remembers of its training; else twice what was seen.

Made-up inputs reach the middle of a network with about the right spread, and its end with too
little of it: they show none of what the model knows. A range that is too wide costs one of eight
bits; one that is too narrow costs the answer. So what was only seen counts twice. Measured on real
inputs, as SQNR in dB of int8 by ranges of real inputs / normal random ones / these: text angle 34 /
4 / 27, house numbers 40 / 4 / 17, digits 39 / 6 / 19, an autoencoder 25 / -9 / 27.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import onnx

from compression import statistics
from compression.calibration import normalized
from compression.calibration.normalized import Remembered
from compression.errors import BadModel
from compression.statistics import Arrays, Range

MARGIN = 2.0
"""How much wider than what was seen."""
BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Clip", "Erf", "Sin", "Cos"})
"""Operators whose outputs have an end of their own."""
_ALIKE = 0.02
"""Of a width: by how much ends of equal ranges may differ."""


@dataclass(frozen=True)
class Beliefs:
    """What one model's normalization nodes say, and what was seen behind them."""

    remembered: tuple[Remembered, ...] = ()
    seen: Mapping[str, Range] = field(default_factory=dict)
    """The ranges behind those nodes in the original, on the made-up inputs."""

    def widen(self, model: onnx.ModelProto, seen: Mapping[str, Range]) -> dict[str, Range]:
        """The ranges to believe of a model's tensors, where `seen` are those on made-up inputs.

        A tensor is what lies behind a folded node where the same was seen there as in the
        original, so that one whose channels a pass has rescaled is not mistaken for it.
        """
        known: dict[str, Range] = {}
        for one in self.remembered:
            wanted = self.seen.get(one.after)
            for name in (one.after, one.before):
                if wanted is not None and name in seen and _alike(seen[name], wanted):
                    known[name] = one.range()
        ends = {value.name for value in model.graph.input}
        ends |= {name for n in model.graph.node if n.op_type in BOUNDED for name in n.output}
        own = normalized.behind(model, {name: seen[name] for name in ends if name in seen})
        doubled = {name: wider(one, MARGIN) for name, one in seen.items()}
        certain = {name: one for name, one in own.items() if name in seen}
        told = {name: one for name, one in normalized.behind(model, known).items() if name in seen}
        return doubled | certain | told


def read(
    model: onnx.ModelProto, feeds: Callable[[], Iterable[Arrays]], *, count: int, threads: int = 1
) -> Beliefs:
    """Read what a model remembers, as it came, before anything is folded.

    `feeds` gives the `count` made-up inputs.
    """
    found = normalized.remembered(model)
    if not found:
        return Beliefs()
    names = tuple(dict.fromkeys(one.after for one in found))
    try:
        seen = statistics.extremes(model, feeds(), names, count=count, threads=threads).ranges()
    except BadModel:  # an opset that the added nodes do not know
        return Beliefs()
    return Beliefs(found, seen)


def wider(seen: Range, factor: float) -> Range:
    """A range whose extremes are farther from zero; what usual samples show stays."""
    return replace(
        seen,
        low=min(seen.low, factor * seen.low),
        high=max(seen.high, factor * seen.high),
    )


def _alike(a: Range, b: Range) -> bool:
    room = _ALIKE * max(b.high - b.low, 1e-12)
    return abs(a.low - b.low) <= room and abs(a.high - b.high) <= room
