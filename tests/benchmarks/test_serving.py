"""The serving benchmark, run once: its answers are right, and it prints its table.

Not a gate: shared cores are too noisy for that. Run by `./dev prove benchmarks`.
"""

from pathlib import Path

import numpy as np
import pytest

from agent.host.offer import Offer
from tests.benchmarks import beside, serving, serving_peer, ways
from tests.simulators import serving as simulator


@pytest.mark.prove
def test_overhead_over_a_bare_run(capsys: pytest.CaptureFixture[str]) -> None:
    figures = serving.run(rounds=12)
    with capsys.disabled():
        print("\n" + serving.table(figures))
    assert {each.cores for each in figures} == set(serving.CORES)
    assert all(each.ours.median_us > each.floor.median_us > 0 for each in figures)


@pytest.mark.prove
def test_a_start_from_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    start = beside.start()
    with capsys.disabled():
        print("\n" + beside.told([start]))
    assert start.cpu_s > 0
    assert 0 < start.rss_mib < 200


@pytest.mark.prove
def test_the_peer_answers_as_ours_does(tmp_path: Path) -> None:
    unix = tmp_path / "oip.sock"
    with (
        simulator.running(unix_path=unix, offer=Offer(shared_memory=True)) as server,
        serving_peer.running(ways.cases(tmp_path)) as peer,
        ways.opened(server, unix, tmp_path, [peer]) as (found, _),
    ):
        beside_peer = [way for way in found if way.others]
        assert len(beside_peer) == len(ways.WAYS)
        for way in beside_peer:
            line = way.others[peer.name]
            tail = np.frombuffer(line.body[-4 * way.answered().size :], "<f4")
            assert np.allclose(tail, way.answered(), rtol=1e-4), way.name


def test_every_way_of_asking_gets_the_answer_of_a_bare_run(tmp_path: Path) -> None:
    unix, apart = tmp_path / "oip.sock", tmp_path / "apart.sock"
    with (
        simulator.running(unix_path=unix, offer=Offer(shared_memory=True)) as server,
        simulator.running(unix_path=apart) as alone,
        ways.opened(server, unix, tmp_path, alone=(alone, apart)) as (found, _),
    ):
        assert len(found) == sum(map(len, ways.WAYS.values()))
        for way in found:
            way.ours[-1].ask()
            assert np.allclose(way.answered(), way.bare()[0].ravel(), rtol=1e-4), way.name
