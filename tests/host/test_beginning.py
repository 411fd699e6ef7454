"""How a supervisor begins, what it counts, and how it ends."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.errors import Unavailable
from agent.host import life, listening
from agent.host.life import Pace
from agent.host.supervisor import Supervisor
from agent.protocol import sketch
from tests.host.asking import ROW, Ears, pid, post
from tests.simulators import models, serving
from tests.simulators.waiting import until


async def test_callers_of_a_server_that_is_still_shut_wait_for_its_models(
    ears: Ears, tmp_path: Path
) -> None:
    supervisor = Supervisor(host="127.0.0.1", port=0, on_crash=ears.crashed, pace=Pace(poll_s=0.05))
    await supervisor.start(shut=True)
    try:
        early = asyncio.create_task(post(supervisor, "mlp", ROW))
        await supervisor.load(serving.request("mlp", models.mlp(tmp_path / "mlp.onnx")))
        assert not early.done()
        await supervisor.open()
        assert len(await early) == 4
    finally:
        await supervisor.stop()


async def test_a_private_folder_is_used_again_after_a_kill(tmp_path: Path) -> None:
    left = listening.unix(tmp_path / "server.sock")
    left.close()  # its file stays, as after a kill
    supervisor = Supervisor(host="127.0.0.1", port=0, private_dir=tmp_path)
    await supervisor.start()
    try:
        assert (tmp_path / "server.sock").is_socket()
        assert tmp_path.stat().st_mode & 0o777 == 0o700
    finally:
        await supervisor.stop()
    assert not (tmp_path / "server.sock").exists()


async def test_a_busy_port_is_one_clear_error(supervisor: Supervisor) -> None:
    second = Supervisor(host="127.0.0.1", port=supervisor.http_port)
    with pytest.raises(Unavailable, match=r"^cannot listen on 127\.0\.0\.1:\d+: Address already"):
        await second.start()


async def test_a_server_that_never_comes_up_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(life, "_MODULE", "agent.serving.nothing")
    with pytest.raises(Unavailable, match=r"^cannot start the server: exit code 1"):
        await Supervisor(host="127.0.0.1", port=0).start()


async def test_counters_are_told_once_and_in_full(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    await supervisor.load(serving.request("m", models.mlp(tmp_path / "mlp.onnx")))
    for _ in range(40):
        await post(supervisor, "m", ROW)
    with pytest.raises(ConnectionError):
        await post(supervisor, "m", np.zeros((1, 9), "f4"))
    await until(lambda: ears.requests("m") == 41)
    told = [m for status in ears.statuses for m in status.models]
    assert sum(m.failures for m in told) == 1
    assert sketch.merged(m.latency_ms for m in told).count == 40
    assert sum(m.busy_s for m in told) > 0
    polls = len(ears.statuses)
    await until(lambda: len(ears.statuses) > polls + 3)
    assert ears.requests("m") == 41


async def test_stopping_finishes_what_is_being_answered(tmp_path: Path) -> None:
    supervisor = Supervisor(host="127.0.0.1", port=0)
    await supervisor.start()
    await supervisor.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx")))
    page = supervisor._ground.page  # type: ignore[union-attr]  # to stop in the midst of a run
    child = psutil.Process(pid(supervisor))
    running = asyncio.create_task(post(supervisor, "slow", np.ones((1000, 512), "f4")))
    await until(page.busy, what="the run")
    await supervisor.stop()
    assert (await running)[0] == 1.0
    assert not child.is_running()
    await supervisor.stop()
    with pytest.raises(ConnectionRefusedError):
        await post(supervisor, "slow", np.ones((1, 512), "f4"))


def test_the_supervisors_process_loads_neither_numpy_nor_onnxruntime() -> None:
    script = textwrap.dedent("""
        import sys, agent.host.supervisor, agent.commandline.serve
        print(sorted({"numpy", "onnxruntime", "onnx", "torch", "uvicorn"} & set(sys.modules)))
    """)
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
