"""The server is killed, hangs or loses its parent: the next one serves."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil

from agent.host.life import Pace
from agent.host.supervisor import Supervisor
from tests.host.asking import QUICK, ROW, Ears, pid, post
from tests.simulators import models, serving
from tests.simulators.waiting import until


async def test_after_kill_9_no_connection_is_refused_and_all_later_requests_are_answered(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    await supervisor.load(serving.request("mlp", models.mlp(tmp_path / "mlp.onnx")))
    expected = await post(supervisor, "mlp", ROW)
    for round_ in (1, 2):
        os.kill(pid(supervisor), signal.SIGKILL)
        # Refused connections would raise here; so would a model that is not there yet.
        answers = await asyncio.gather(*(post(supervisor, "mlp", ROW) for _ in range(50)))
        assert all(np.array_equal(answer, expected) for answer in answers)
        # What was not told before a death is lost with it, nothing is counted twice.
        await until(lambda told=50 * round_: ears.requests("mlp") >= told)
        assert supervisor.restarts == round_
    assert [how for _, how in ears.crashes] == ["killed by SIGKILL, from outside"] * 2


async def test_a_server_that_hangs_is_killed_and_replaced(ears: Ears, tmp_path: Path) -> None:
    supervisor = Supervisor(
        host="127.0.0.1", port=0, on_crash=ears.crashed, pace=Pace(poll_s=0.05, answer_s=0.5)
    )
    await supervisor.start()
    try:
        await supervisor.load(serving.request("mlp", models.mlp(tmp_path / "mlp.onnx")))
        os.kill(pid(supervisor), signal.SIGSTOP)
        assert len(await post(supervisor, "mlp", ROW)) == 4
        assert ears.crashes == [(None, "missed 3 heartbeats")]
    finally:
        await supervisor.stop()


async def test_a_file_that_is_gone_after_a_restart_is_told_and_the_rest_serves(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        await supervisor.load(serving.request(name, models.mlp(tmp_path / f"{name}.onnx")))
    (tmp_path / "a.onnx").write_bytes(b"the card is dying")
    os.kill(pid(supervisor), signal.SIGKILL)
    assert len(await post(supervisor, "b", ROW)) == 4
    assert list(supervisor.live()) == ["b"]
    blamed, how = ears.crashes[-1]
    assert blamed == "a"
    assert how.startswith("and it cannot be loaded again: cannot load ")


ORPHAN = """
import asyncio
from agent.host.supervisor import Supervisor

async def main():
    supervisor = Supervisor(host="127.0.0.1", port=0)
    await supervisor.start()
    print(supervisor.status.pid, supervisor.http_port, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_the_server_ends_when_its_parent_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHAN, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child_pid, port = map(int, (await parent.stdout.readline()).split())
    child = psutil.Process(child_pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    await until(lambda: not listens(port), what="the port to be free")


def listens(port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in psutil.net_connections("tcp")
    )


async def test_each_time_that_it_serves_again_is_told(tmp_path: Path) -> None:
    ups: list[bool] = []
    supervisor = Supervisor(
        host="127.0.0.1", port=0, pace=QUICK, on_up=lambda: ups.append(supervisor.up)
    )
    await supervisor.start()
    try:
        os.kill(pid(supervisor), signal.SIGKILL)
        await until(lambda: len(ups) == 2)
    finally:
        await supervisor.stop()
    assert ups == [True, True]


async def test_what_is_unloaded_while_the_server_starts_again_stays_unloaded(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    heavy = serving.slow(tmp_path / "slow.onnx", layers=1000)
    await supervisor.load(serving.request("first", heavy))
    await supervisor.load(serving.request("second", models.mlp(tmp_path / "mlp.onnx")))
    os.kill(pid(supervisor), signal.SIGKILL)
    await until(lambda: not supervisor.up)
    await until(supervisor._ground.page.busy)  # type: ignore[union-attr]  # "first" is loading
    await supervisor.unload("first")
    await supervisor.unload("second")
    await until(lambda: supervisor.up)
    await until(lambda: supervisor.status is not None and not supervisor.status.models)
