"""Who is named when a real server dies, and who is not."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.host.supervisor import Supervisor
from tests.host.asking import ROW, Ears, pid, post
from tests.simulators import models, serving
from tests.simulators.waiting import until


async def test_who_was_running_is_blamed_and_the_second_time_expelled(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    slow = serving.request("slow", serving.slow(tmp_path / "slow.onnx"))
    await supervisor.load(slow)
    await supervisor.load(serving.request("mlp", models.mlp(tmp_path / "mlp.onnx")))
    page = supervisor._ground.page  # type: ignore[union-attr]  # to kill in the midst of a run
    for deaths in (1, 2):
        running = asyncio.create_task(post(supervisor, "slow", np.zeros((4000, 512), "f4")))
        await until(page.busy, what="the run")
        os.kill(pid(supervisor), signal.SIGSEGV)
        with pytest.raises(ConnectionError):
            await running
        await until(lambda deaths=deaths: supervisor.up and supervisor.restarts == deaths)
    assert [blamed for blamed, _ in ears.crashes] == ["slow", "slow"]
    assert ears.crashes[0][1] == "killed by SIGSEGV"
    assert ears.crashes[1][1] == "killed by SIGSEGV; expelled: 2 crashes within 10 min"
    assert list(supervisor.live()) == ["mlp"]
    assert len(await post(supervisor, "mlp", ROW)) == 4
    with pytest.raises(ConnectionError, match="cannot find model 'slow'"):
        await post(supervisor, "slow", np.zeros((1, 512), "f4"))


async def test_who_was_running_when_somebody_outside_killed_the_server_is_not_blamed(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    await supervisor.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx")))
    page = supervisor._ground.page  # type: ignore[union-attr]  # to kill in the midst of a run
    for deaths in (1, 2, 3):
        running = asyncio.create_task(post(supervisor, "slow", np.zeros((4000, 512), "f4")))
        await until(page.busy, what="the run")
        os.kill(pid(supervisor), signal.SIGKILL)
        with pytest.raises(ConnectionError):
            await running
        await until(lambda deaths=deaths: supervisor.up and supervisor.restarts == deaths)
    assert [blamed for blamed, _ in ears.crashes] == [None] * 3
    assert list(supervisor.live()) == ["slow"]


async def test_several_that_were_running_are_only_suspected(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    path = serving.slow(tmp_path / "slow.onnx")
    for name in "ab":
        await supervisor.load(serving.request(name, path))
    page = supervisor._ground.page  # type: ignore[union-attr]  # to kill in the midst of both
    rows = np.zeros((3000, 512), "f4")
    running = [asyncio.create_task(post(supervisor, name, rows)) for name in "ab"]
    await until(lambda: len(page.busy()) == 2, what="both runs")
    os.kill(pid(supervisor), signal.SIGSEGV)
    await asyncio.gather(*running, return_exceptions=True)
    await until(lambda: supervisor.restarts == 1 and supervisor.up)
    assert ears.crashes == [(None, "killed by SIGSEGV (it was running a, b)")]
    child = psutil.Process(pid(supervisor))
    assert "--serial-s" in child.cmdline(), "from now on one at a time, so that it gets clear"
