"""How far forecasts of latency are from what trials measure, over variants that were really made.

Run by `./dev prove benchmarks -k latency`; `TRIMTAB_LATENCY` names models, if not all are wanted.
Known of each model are three measurements: whole, in float and in two forms of integers. All else
is forecast from the table of kernels before the variant is measured.
"""

import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest

from compression import channels, graph, runtime, samples
from compression.findings import Measurement
from compression.job import DeviceClass, KernelCosts, KernelJob, Runtime, TrialJob
from compression.latency import asking, forecasting, kernels
from compression.latency.forecasting import Whole
from compression.latency.table import Table
from compression.passes import quantization
from compression.pruning import costs, surgery
from compression.statistics import ranges
from compression.stream import Failed, TrialAnswer
from tests.compression import parent
from tests.fixtures import models, more
from tests.fixtures.trained import collection

NAMES = (
    "svhn", "mnist", "keywords", "autoencoder", "sentences", "text-angle", "detector", "recogniser",
)  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "float": (), "int8": ("Conv", "Gemm", "MatMul"), "int8 all": ("*",),
}  # fmt: skip
OF_EACH = 6
LEVELS = (0.8, 0.6, 0.4)
CALIBRATING = 8
HOW = Runtime()
HERE = DeviceClass(machine="here", isa=(), cores=1, onnxruntime="installed")
MOST_MEDIAN = 0.10


@dataclass(frozen=True)
class Row:
    model: str
    kind: str
    products: float
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


class Bench:
    """One model: its variants, what they are forecast to take, and what they take."""

    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        self._path, self._inputs = _fixture(name, folder)
        self.model = graph.regular(self._path)
        session = runtime.session(self._path)
        with samples.open_samples(self._inputs, runtime.inputs(session)) as held:
            self._feeds = [held.sample(at) for at in range(min(CALIBRATING, len(held)))]
        self.channels = channels.find(self.model, sample=self._feeds[0])
        stop = time.monotonic() + 3600
        measure = asking.asker(_ask, folder=folder, how=HOW, stop=stop)
        self._table = Table(folder, HERE, HOW, measure=measure)

    def cost(self, variant: onnx.ModelProto) -> float:
        """What the kernels of a variant cost together."""
        found = kernels.of(variant, self._feeds[0], folder=self._folder, how=HOW)
        cost = self._table.cost(found)
        assert cost is not None
        return cost

    def made(self, kind: str, widths: dict[str, int]) -> onnx.ModelProto:
        """A variant: cut to some widths, then in float or in integers."""
        keep = {name: range(width) for name, width in widths.items()}
        cut = surgery.cut(self.model, self.channels, keep) if keep else self.model
        if not KINDS[kind]:
            return cut
        settings = quantization.Settings(operators=KINDS[kind], weights="s8-7bit")
        seen = ranges(cut, self._feeds, count=len(self._feeds))
        return quantization.apply(cut, settings, ranges=seen)

    def measured(self, variant: onnx.ModelProto) -> float:
        """The variant's CPU time over the original's, by a trial."""
        path = self._folder / "candidate.onnx"
        onnx.save(variant, path)
        job = TrialJob(
            candidate_path=str(path), original_path=str(self._path),
            inputs_path=str(self._inputs), sample_indices=tuple(range(len(self._feeds))),
            rounds=40, seconds=20,
        )  # fmt: skip
        found = parent.run_trial(job, timeout_s=300)
        assert isinstance(found, Measurement), found
        return found.cpu_ratio

    def widths(self, level: float, chance: random.Random) -> dict[str, int]:
        """Widths of about a level, each group its own."""
        found = {}
        for group in self.channels.groups:
            wish = group.width * min(1.0, level * chance.uniform(0.6, 1.4))
            width = min(costs.steps(group), key=lambda step: abs(step - wish))
            if width < group.width:
                found[group.id] = width
        return found


def _fixture(name: str, folder: Path) -> tuple[Path, Path]:
    if name in collection.NAMES:
        found = collection.load(name)
        inputs = folder / "inputs.npz"
        found.write_inputs(inputs, CALIBRATING, collection.CALIBRATION_SEED)
        return found.onnx, inputs
    other = (models.FIXTURES | more.MORE)[name]()
    return other.onnx, other.calibration


def _ask(job: KernelJob) -> TrialAnswer:
    found = parent.time_kernels(job, timeout_s=300)
    if isinstance(found, KernelCosts):
        return TrialAnswer(kernels=found)
    assert isinstance(found, Failed)
    return TrialAnswer(failed=found)


def rows(name: str, folder: Path) -> Iterator[Row]:
    bench = Bench(name, folder)
    known = []
    for kind in KINDS:
        whole = bench.made(kind, {})
        known.append(Whole(kind, bench.cost(whole), bench.measured(whole)))
    counts = costs.Costs(bench.channels)
    chance = random.Random(name)
    for number in range(OF_EACH):
        kind = tuple(KINDS)[number % len(KINDS)]
        widths = bench.widths(LEVELS[number // len(KINDS) % len(LEVELS)], chance)
        left = [widths.get(group.id, group.width) for group in bench.channels.groups]
        variant = bench.made(kind, widths)
        predicted = forecasting.ratio(bench.cost(variant), kind, known)
        yield Row(name, kind, counts.left(left), predicted, bench.measured(variant))


@pytest.mark.prove
@pytest.mark.timeout(7200)
def test_forecasts_are_near_what_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wanted = os.environ.get("TRIMTAB_LATENCY", "").split(",")
    found: list[Row] = []
    with capsys.disabled():
        print(f"\n{'model':12} {'kind':9} {'MACs':>5} {'forecast':>8} {'measured':>8} {'error':>7}")
        for name in NAMES:
            if wanted != [""] and name not in wanted:
                continue
            folder = tmp_path / name
            folder.mkdir()
            for row in rows(name, folder):
                found.append(row)
                print(
                    f"{row.model:12} {row.kind:9} {row.products:5.2f} {row.predicted:8.3f} "
                    f"{row.measured:8.3f} {row.error:+7.1%}",
                    flush=True,
                )
        errors = [abs(row.error) for row in found]
        median, worst = statistics.median(errors), max(errors)
        print(f"{len(found)} variants: median error {median:.1%}, worst {worst:.1%}", flush=True)
    assert median <= MOST_MEDIAN
