"""How good a student is, as it would be deployed: in onnxruntime, beside the original."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from compression import pairing, runtime
from compression.job import OutputSpec, Runtime
from compression.pairing import Verdict
from compression.statistics import Arrays

_LEAST = 1e-6


@dataclass(frozen=True)
class Figures:
    """On some inputs: the agreement, and the loss that moves before answers change."""

    agreement: float
    loss: float

    def told(self) -> str:
        """Both, in words."""
        return f"agreement {self.agreement:.4f}, loss {self.loss:.4g}"

    def score(self, beginning: "Figures") -> float:
        """Both in parts of what they were: 1 is no change, less is better.

        The geometric mean, since a loss may fall at the cost of answers.
        """
        disagreed = (1 - self.agreement + _LEAST) / (1 - beginning.agreement + _LEAST)
        lost = (self.loss + _LEAST) / (beginning.loss + _LEAST)
        return float((disagreed * lost) ** 0.5)


class Judge:
    """Compares models with the original on samples that are read anew each time."""

    def __init__(
        self, original: onnx.ModelProto, outputs: Sequence[OutputSpec], *, threads: int
    ) -> None:
        self._how = runtime.options(Runtime(threads=threads, arena=False))
        self._original = runtime.session(original, self._how)
        self._outputs = tuple(outputs) or tuple(
            OutputSpec(name=value.name) for value in original.graph.output
        )

    def figures(self, model: onnx.ModelProto, samples: Iterable[tuple[int, Arrays]]) -> Figures:
        """The figures of one model; samples come with their sources."""
        verdict = self._pairs(None, model, samples).verdict()
        return Figures(verdict.agreement.after, verdict.loss.after)

    def verdict(
        self, before: onnx.ModelProto, after: onnx.ModelProto, samples: Iterable[tuple[int, Arrays]]
    ) -> Verdict:
        """Whether one model is better than another beyond chance."""
        return self._pairs(before, after, samples).verdict()

    def _pairs(
        self,
        before: onnx.ModelProto | None,
        after: onnx.ModelProto,
        samples: Iterable[tuple[int, Arrays]],
    ) -> pairing.Pairs:
        sessions = [
            None if model is None else runtime.session(model, self._how)
            for model in (before, after)
        ]
        pairs: pairing.Pairs | None = None
        for source, feeds in samples:
            wanted = runtime.run(self._original, feeds)
            found: list[Any] = [
                wanted if session is None else runtime.run(session, feeds) for session in sessions
            ]
            if pairs is None:
                pairs = pairing.Pairs(self._outputs, first=[wanted])
            pairs.add(wanted, *found, source=source)
        assert pairs is not None  # no part is empty, see ground.py
        return pairs
