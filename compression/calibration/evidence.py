"""What a recipe's passes may ask about the calibration inputs: means, extremes and moments.

Any model of the chain can be asked about: the original, what a pass made of it. Answers are found
by streaming, within the job's memory, and kept for the few models that were asked about last.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from compression.calibration import channels, moments
from compression.calibration.channels import Layout
from compression.job import OutputSpec
from compression.statistics import Arrays

_MODELS_KEPT = 4
_RESULTS_KEPT = 4
T = TypeVar("T")


class Evidence:
    """Statistics of any models on one set of samples.

    `feeds` is called once for each pass over the samples and gives the same ones every time.
    `sources` says of each where it comes from; without it each is a source of its own. `wide` is
    about the same samples and more of their kind, for what many samples help. `outputs` say what
    the original's outputs mean.
    """

    def __init__(
        self,
        feeds: Callable[[], Iterable[Arrays]],
        *,
        threads: int = 1,
        work_memory_mib: float = 256.0,
        seed: int = 0,
        sources: Callable[[], Sequence[int]] | None = None,
        wide: "Evidence | None" = None,
        outputs: Sequence[OutputSpec] = (),
    ) -> None:
        self.feeds = feeds
        self.threads = threads
        self.work_memory_mib = work_memory_mib
        self.seed = seed
        self.sources = sources
        self.wide = wide or self
        self.outputs = tuple(outputs)
        self._known: OrderedDict[str, dict[Any, NDArray[np.float64]]] = OrderedDict()
        self._results: OrderedDict[tuple[str, ...], Any] = OrderedDict()

    def once(self, model: onnx.ModelProto, question: str, answer: Callable[[], T]) -> T:
        """Return what `answer` finds about a model; the few that were asked about last are kept.

        The same `question` must always have an answer of the same type.
        """
        key = (_digest(model), question)
        if key not in self._results:
            self._results[key] = answer()
        self._results.move_to_end(key)
        while len(self._results) > _RESULTS_KEPT:
            self._results.popitem(last=False)
        found: T = self._results[key]
        return found

    def means(
        self, model: onnx.ModelProto, wanted: Mapping[str, Layout], *, most: int | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Return the mean of each channel, float64 [channels], of these tensors by name.

        `most` bounds how many samples are run. Tensors that are not finite are left out.

        Raises:
            BadModel: the model does not run, or has no such float tensor.
            BadInputs: there are no samples.
        """
        return self._channels(model, wanted, kind="mean", most=most)

    def extremes(
        self, model: onnx.ModelProto, wanted: Mapping[str, Layout], *, most: int | None = None
    ) -> dict[str, NDArray[np.float64]]:
        """Return the least and largest value of each channel, float64 [2, channels], by name.

        Otherwise as `means`.
        """
        return self._channels(model, wanted, kind="extremes", most=most)

    def moments(
        self,
        model: onnx.ModelProto,
        wanted: Mapping[str, moments.Input],
        *,
        most: int | None = None,
    ) -> Iterator[tuple[str, moments.Moments]]:
        """Yield what the inputs of each layer have in common; see `moments.stream`."""
        return moments.stream(
            model,
            lambda: _first(self.feeds(), most),
            wanted=wanted,
            work_memory_mib=self.work_memory_mib,
            threads=self.threads,
            seed=self.seed,
        )

    def _channels(
        self, model: onnx.ModelProto, wanted: Mapping[str, Layout], *, kind: str, most: int | None
    ) -> dict[str, NDArray[np.float64]]:
        known = self._of(model)
        lacking = {
            name: how for name, how in wanted.items() if (kind, name, how, most) not in known
        }
        if lacking:
            feeds = _first(self.feeds(), most)
            for name, found in channels.gather(
                model, feeds, lacking, kind=kind, threads=self.threads
            ).items():
                known[kind, name, wanted[name], most] = found
        asked = {name: known.get((kind, name, how, most)) for name, how in wanted.items()}
        return {name: found for name, found in asked.items() if found is not None}

    def _of(self, model: onnx.ModelProto) -> dict[Any, NDArray[np.float64]]:
        name = _digest(model)
        known = self._known.setdefault(name, {})
        self._known.move_to_end(name)
        while len(self._known) > _MODELS_KEPT:
            self._known.popitem(last=False)
        return known


def _digest(model: onnx.ModelProto) -> str:
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _first(feeds: Iterable[Arrays], most: int | None) -> Iterator[Arrays]:
    for at, sample in enumerate(feeds):
        if most is not None and at >= most:
            return
        yield sample
