"""What exact rewritings save: CPU time of regular graphs with and without them, in a table.

Run by `./dev prove benchmarks`. Both run in turns on one thread, so that their ratio holds on a
busy machine; a table is no test, and only answers are asserted.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from compression import graph, runtime
from compression.errors import BadModel
from compression.regular import equality
from compression.regular.fusing import rewriting
from tests.fixtures import graphs
from tests.fixtures.models import FIXTURES
from tests.fixtures.trained import collection

SECONDS = 3.0
LEAST_ROUNDS = 5
HEAD = f"{'model':18} {'nodes':>12} {'ms':>8} {'fused':>8} {'CPU':>6} {'difference':>10}"


@contextmanager
def unfused() -> Iterator[None]:
    """Graphs become regular without being fused."""
    levels, rewriting.LEVELS = rewriting.LEVELS, ()
    try:
        yield
    finally:
        rewriting.LEVELS = levels


def compared(path: Path) -> tuple[tuple[int, int], tuple[float, float], float, float]:
    """Nodes, milliseconds of CPU time, the median of their ratios, and the largest difference."""
    oracle = equality.ask(path, sample=None, seed=11)
    with unfused():
        plain = graph.regular(path)
    models = plain, graph.regular(path)
    sessions = [runtime.session(one) for one in models]
    feeds, wanted = oracle.cases[0]
    gap = max(equality.difference(wanted, runtime.run(one, feeds)) for one in sessions)
    taken: tuple[list[int], list[int]] = ([], [])
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends or len(taken[0]) < LEAST_ROUNDS:
        for at in (0, 1) if len(taken[0]) % 2 else (1, 0):
            started = time.process_time_ns()
            runtime.run(sessions[at], feeds)
            taken[at].append(time.process_time_ns() - started)
    before, after = (np.array(one) / 1e6 for one in taken)
    counts = len(models[0].graph.node), len(models[1].graph.node)
    medians = float(np.median(before)), float(np.median(after))
    return counts, medians, float(np.median(after / before)), gap


@pytest.mark.prove
def test_fused_graphs_answer_the_same_in_less_time(capsys: pytest.CaptureFixture[str]) -> None:
    sources: dict[str, Callable[[], Path]] = {
        **{name: lambda make=make: make().onnx for name, make in FIXTURES.items()},
        **{name: lambda name=name: collection.load(name).onnx for name in collection.NAMES},
        **{name: lambda name=name: graphs.fetch(name) for name in graphs.GRAPHS},
    }
    wrong = []
    with capsys.disabled():
        print(f"\n{HEAD}")
        for name, source in sources.items():
            try:
                counts, medians, ratio, gap = compared(source())
            except BadModel as error:
                print(f"{name:18} refused: {str(error)[:100]}")
                continue
            nodes = f"{counts[0]} -> {counts[1]}"
            spent = f"{medians[0]:8.3f} {medians[1]:8.3f} {ratio:6.3f}"
            print(f"{name:18} {nodes:>12} {spent} {gap:10.1e}")
            if not gap <= equality.HALF_TOLERANCE or counts[1] > counts[0]:
                wrong.append(name)
    assert not wrong
