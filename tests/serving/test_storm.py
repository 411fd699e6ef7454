"""Swaps, kills and slow neighbours under constant load: who waits how long, and that nobody loses.

`./dev prove serving` runs the large counts and prints the figures; the small ones run each time.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from agent.host.life import Pace
from tests.serving.load import Group
from tests.serving.loading_up import load, request
from tests.simulators import models, serving
from tests.simulators.serving import Running

CLIENTS = 8
RATE_HZ = 40.0
"""Of each client: together about a third of what two cores can do beside the one that asks."""
VARIANTS = ("a", "b", "c")
SWAPS_A_BLOCK = 25
PAUSE_S = 0.02


def variants(folder: Path) -> list[Path]:
    """Three models that take the same and answer otherwise."""
    return [models.cnn(folder / f"{name}.onnx", seed=at) for at, name in enumerate(VARIANTS)]


def cnn_group(paths: list[Path], *, rate_hz: float = RATE_HZ) -> Group:
    """Clients that know what each variant answers to each of four images."""
    images = [models.sample_inputs(paths[0], 1, seed=at)["image"] for at in range(4)]
    sessions = [onnxruntime.InferenceSession(path) for path in paths]
    known = tuple(
        {
            session.run(None, {"image": image})[0].tobytes(): name
            for session, name in zip(sessions, VARIANTS, strict=True)
        }
        for image in images
    )
    assert all(len(each) == len(VARIANTS) for each in known)
    asked = tuple(request("m", "image", image) for image in images)
    return Group("cnn", CLIENTS, rate_hz, asked, known, versions=VARIANTS)


def told(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """The figures of a large count."""
    with capsys.disabled():
        print(f"\n{text}")


def p99(latencies_ms: Any) -> float:
    return float(np.percentile(latencies_ms, 99))


@pytest.mark.parametrize(
    "swaps", [50, pytest.param(1000, marks=[pytest.mark.prove, pytest.mark.timeout(1800)])]
)
def test_swaps_under_constant_load(
    swaps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = variants(tmp_path)
    rss: list[float] = []
    blocks = swaps // SWAPS_A_BLOCK
    with serving.running(pace=Pace(poll_s=0.1)) as server:
        server.load("m", paths[0], version=0)
        with load(server, [cnn_group(paths)], tmp_path) as clients:
            for block in range(blocks):
                clients.phase(f"steady {block}")
                time.sleep(SWAPS_A_BLOCK * PAUSE_S * 1.5)  # as long as the swaps: not to be right
                clients.phase(f"swaps {block}")
                for at in range(SWAPS_A_BLOCK):
                    version = block * SWAPS_A_BLOCK + at + 1
                    reply = server.call(
                        server.supervisor.load(
                            serving.request("m", paths[version % 3], version=version)
                        )
                    )
                    rss.append(reply.rss_mib)
                    time.sleep(PAUSE_S)
            clients.phase("end")
    found = clients.found("cnn")
    assert set(found) == set(VARIANTS), found
    steady, swapping = ([f"{kind} {at}" for at in range(blocks)] for kind in ("steady", "swaps"))
    before, during = (clients.latencies_ms("cnn", *phases) for phases in (steady, swapping))
    grown = rss[-1] / rss[9] - 1
    if swaps >= 1000:
        told(
            capsys,
            f"{swaps} swaps, {sum(found.values())} requests: p50 {np.median(before):.2f} ms "
            f"steady, {np.median(during):.2f} ms while swapping; p99 {p99(before):.2f} and "
            f"{p99(during):.2f} ms ({p99(during) / p99(before):.2f}x); max {before.max():.1f} and "
            f"{during.max():.1f} ms; RSS {rss[9]:.1f} MiB after ten, {rss[-1]:.1f} at the end "
            f"({grown:+.1%}; by tenths {', '.join(f'{each:.1f}' for each in rss[:: swaps // 10])})",
        )
    # Models that were kept would add their 0.2 MiB each time; what is seen is where blocks lie.
    assert grown < 0.10


@pytest.mark.parametrize(
    "seconds", [1.0, pytest.param(20.0, marks=[pytest.mark.prove, pytest.mark.timeout(900)])]
)
def test_a_quick_model_beside_a_slow_one_that_is_saturated(
    seconds: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The slow one runs about 200 ms; phases alternate, so that others' load hits both alike."""
    row = np.linspace(-1, 1, 8, dtype="f4")[np.newaxis]
    rows = np.ones((200, 512), "f4")
    quick = Group("quick", 2, 100.0, (request("quick", "x", row),))
    slow = Group("slow", 4, 0.0, (request("slow", "x", rows),))
    rounds = 4
    with serving.running() as server:
        server.load("quick", models.mlp(tmp_path / "quick.onnx"))
        server.load("slow", serving.slow(tmp_path / "slow.onnx"))
        with load(server, [quick], tmp_path) as clients:
            for at in range(rounds):
                clients.phase(f"alone {at}")
                time.sleep(seconds / rounds)  # how long is looked, not to be right
                (tmp_path / str(at)).mkdir()
                with load(server, [slow], tmp_path / str(at)) as others:
                    others.phase("beside")
                    clients.phase(f"beside {at}")
                    time.sleep(seconds / rounds)
                    clients.phase("between")
                assert set(others.found("slow")) == {"200"}
    assert set(clients.found("quick")) == {"200"}
    alone, beside = (
        clients.latencies_ms("quick", *(f"{kind} {at}" for at in range(rounds)))
        for kind in ("alone", "beside")
    )
    if seconds > 5:
        told(
            capsys,
            f"quick model alone: p50 {np.median(alone):.2f} ms, p99 {p99(alone):.2f}; beside one "
            f"of {np.median(others.latencies_ms('slow', 'beside')):.0f} ms a request that is "
            f"saturated: p50 {np.median(beside):.2f}, p99 {p99(beside):.2f}",
        )


@pytest.mark.parametrize(
    "kills", [2, pytest.param(20, marks=[pytest.mark.prove, pytest.mark.timeout(1800)])]
)
def test_kills_under_load_refuse_nobody(
    kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = variants(tmp_path)
    back_s: list[float] = []
    # Deaths in a row are the test's, no sign of a fault.
    pace = Pace(poll_s=0.05, quick_death_s=0.0)
    with serving.running(pace=pace) as server:
        server.load("m", paths[0], version=0)
        with load(server, [cnn_group(paths)], tmp_path) as clients:
            for at in range(kills):
                clients.phase(f"round {at}")
                assert server.supervisor.status is not None
                pid = server.supervisor.status.pid
                os.kill(pid, signal.SIGKILL)
                began = time.perf_counter()
                # Asked at once: it waits in the backlog, and is answered by the next process.
                status, _, _ = server.ask("GET", "/v2/models/m/ready", within_s=150)
                back_s.append(time.perf_counter() - began)
                assert status == 200
                wait_for_heartbeat(server, other_than=pid)
    found = clients.found("cnn")
    assert set(found) <= {"a", "broken"}, found
    assert found.get("broken", 0) <= kills * CLIENTS
    if kills >= 20:
        told(
            capsys,
            f"{kills} kills: back after {np.median(back_s):.2f} s in the median, "
            f"{max(back_s):.2f} at most; {found['a']} answers, {found.get('broken', 0)} requests "
            f"in flight got a closed connection, none was refused",
        )


def wait_for_heartbeat(server: Running, *, other_than: int) -> None:
    deadline = time.monotonic() + 60
    while server.supervisor.status is None or server.supervisor.status.pid == other_than:
        assert time.monotonic() < deadline, "no heartbeat"
        time.sleep(0.01)
