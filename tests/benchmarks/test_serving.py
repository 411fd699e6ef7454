"""The serving benchmark, run once: its answers are right, and it prints its table.

Not a gate: shared cores are too noisy for that. Run by `./dev prove benchmarks`.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import beside, serving
from tests.simulators import serving as simulator


@pytest.mark.prove
def test_overhead_over_a_bare_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = serving.run(rounds=12)
    with capsys.disabled():
        print("\n" + serving.table(figures))
    assert {each.cores for each in figures} == set(serving.CORES)
    assert all(each.ours_us > each.floor_us > 0 for each in figures)


@pytest.mark.prove
def test_a_start_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    start = beside.start()
    with capsys.disabled():
        print(f"\n{start}")
    assert start.cpu_s > 0
    assert 0 < start.rss_mib < 200


def test_every_way_of_asking_gets_the_answer_of_a_bare_run(tmp_path: Path) -> None:
    unix = tmp_path / "oip.sock"
    with (
        simulator.running(unix_path=unix) as server,
        serving.ways(server, unix, tmp_path) as (found, _),
    ):
        assert {way.name.split()[0] for way in found} == set(serving.WAYS)
        for way in found:
            expected = way.bare()[0]
            for line in way.ours[:1]:
                line.ask()
                answer = serving.answered(line)
                assert np.allclose(answer, expected.ravel(), rtol=1e-4), way.name
