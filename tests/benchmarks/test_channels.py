"""How much of real models structured pruning can reach, and whether cuts are exact: a table.

Run by `./dev prove benchmarks -k channels`.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compression import channels, graph
from compression.errors import BadModel
from tests.compression.masked import Oracle, first_inputs, random_units
from tests.fixtures import graphs
from tests.fixtures.models import FIXTURES
from tests.fixtures.trained import collection

LEAST = {
    "svhn": 1.0, "text-angle": 1.0, "autoencoder": 1.0, "detector": 1.0, "keywords": 1.0,
    "sentences": 0.99, "ocr-v4-detector": 1.0, "ocr-v6-detector": 1.0, "ocr-v4-recogniser": 0.95,
    "silero-sequence": 0.95,
}  # fmt: skip
"""By model, the least share of products that stands along an axis which can be cut."""
SHARES = (0.3, 0.5, 0.8, 0.95)
TOLERANCE = 1e-4
HEAD = (
    f"{'model':20} {'groups':>6} {'units':>6} {'MACs':>6} {'params':>6} {'difference':>10} {'s':>5}"
)


@dataclass(frozen=True)
class Row:
    """What was found of one model; `gap` is the largest difference over all cuts."""

    groups: int
    units: int
    macs_share: float
    parameters_share: float
    gap: float
    seconds: float
    frozen: Counter[str]

    def __str__(self) -> str:
        return (
            f"{self.groups:6} {self.units:6} {self.macs_share:6.3f} {self.parameters_share:6.3f} "
            f"{self.gap:10.1e} {self.seconds:5.1f}"
        )


def row(path: Path, arrays: dict[str, Any] | None) -> Row:
    feeds = None if arrays is None else first_inputs(arrays)
    model = graph.regular(path, sample=feeds)
    started = time.perf_counter()
    found = channels.find(model, sample=feeds)
    seconds = time.perf_counter() - started
    gaps = [0.0]
    if found.groups:
        oracle = Oracle(model, found, cases=None if feeds is None else [feeds])
        units = [random_units(found, share=share, seed=at) for at, share in enumerate(SHARES)]
        gaps = [oracle.gap(each) for each in units]
    frozen: Counter[str] = Counter()
    for one in found.frozen:
        frozen[one.reason] += one.count
    return Row(
        len(found.groups), sum(group.width for group in found.groups), found.macs_share,
        found.parameters_share, max(gaps), seconds, frozen,
    )  # fmt: skip


def of_fixture(name: str) -> Row:
    fixture = FIXTURES[name]()
    return row(fixture.onnx, dict(np.load(fixture.calibration)))


def of_trained(name: str) -> Row:
    trained = collection.load(name)
    return row(trained.onnx, trained.make_inputs(1, 5))


def of_graph(name: str) -> Row:
    return row(graphs.fetch(name), None)


@pytest.mark.prove
def test_real_models_can_be_cut_and_answer_as_if_zeroed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources: dict[str, Callable[[str], Row]] = {
        **dict.fromkeys(FIXTURES, of_fixture),
        **dict.fromkeys(collection.NAMES, of_trained),
        **dict.fromkeys(graphs.GRAPHS, of_graph),
    }
    rows: dict[str, Row] = {}
    with capsys.disabled():
        print(f"\n{HEAD}")
        for name, source in sources.items():
            try:
                rows[name] = source(name)
            except BadModel as error:
                print(f"{name:20} refused: {error}")
                continue
            print(f"{name:20} {rows[name]}")
            for reason, count in rows[name].frozen.most_common(4):
                print(f"{'':20} {count:6} {reason}")
    assert not {name: one.gap for name, one in rows.items() if one.gap > TOLERANCE}
    assert not {name for name, least in LEAST.items() if rows[name].macs_share < least}
    assert len(rows) >= 30
