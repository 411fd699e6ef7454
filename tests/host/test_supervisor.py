"""The supervisor with real server processes that are killed, hang, and leave their names behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agent.errors import BadInput, Corrupt, Refused, Unavailable
from agent.host import life, listening
from agent.host.life import Pace
from agent.host.supervisor import Supervisor
from agent.protocol import sketch
from agent.protocol.private import ServerStatus
from tests.simulators import models, serving
from tests.simulators.waiting import until

QUICK = Pace(poll_s=0.05, answer_s=2.0)


class Ears:
    """What the callbacks heard."""

    def __init__(self) -> None:
        self.crashes: list[tuple[str | None, str]] = []
        self.said: list[str] = []
        self.statuses: list[ServerStatus] = []

    def crashed(self, blamed: str | None, how: str, said: str) -> None:
        self.crashes.append((blamed, how))
        self.said.append(said)

    def requests(self, name: str) -> int:
        return sum(m.requests for status in self.statuses for m in status.models if m.name == name)


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
async def supervisor(ears: Ears) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        host="127.0.0.1",
        port=0,
        on_crash=ears.crashed,
        on_counters=ears.statuses.append,
        pace=QUICK,
    )
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


def pid(supervisor: Supervisor) -> int:
    assert supervisor.status is not None
    return supervisor.status.pid


async def post(
    supervisor: Supervisor, model: str, rows: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """One raw binary request on a connection of its own; its first output."""
    reader, writer = await asyncio.open_connection("127.0.0.1", supervisor.http_port)
    try:
        text = (
            f'{{"inputs":[{{"name":"x","shape":{list(rows.shape)},"datatype":"FP32",'
            f'"parameters":{{"binary_data_size":{rows.nbytes}}}}}],'
            '"parameters":{"binary_data_output":true}}'
        ).encode()
        writer.write(
            f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"inference-header-content-length: {len(text)}\r\n"
            f"content-length: {len(text) + rows.nbytes}\r\n\r\n".encode()
            + text
            + rows.tobytes()
        )
        answer = await reader.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer[:300].decode())
        return np.frombuffer(body[body.rindex(b"}") + 1 :], "<f4")
    finally:
        writer.close()


ROW = np.zeros((1, 8), "f4")


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


async def test_a_load_that_fails_keeps_what_serves(supervisor: Supervisor, tmp_path: Path) -> None:
    good = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(good)
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x08no")
    with pytest.raises(BadInput, match=r"^cannot load .*bad\.onnx"):
        await supervisor.load(serving.request("m", tmp_path / "bad.onnx", version=2))
    with pytest.raises(Corrupt, match="its sha256 is"):
        await supervisor.load(good.model_copy(update={"sha256": "0" * 64}))
    assert supervisor.live() == {"m": good.sha256}
    assert len(await post(supervisor, "m", ROW)) == 4


async def test_a_model_that_dies_while_it_is_loaded_is_refused(
    supervisor: Supervisor, ears: Ears, tmp_path: Path
) -> None:
    old = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(old)
    page = supervisor._ground.page  # type: ignore[union-attr]  # to kill in the midst of a load
    # A pipe instead of a file: the load waits for it as long as the test needs.
    os.mkfifo(tmp_path / "model.onnx")
    new = old.model_copy(update={"path": str(tmp_path / "model.onnx"), "version": 2})
    loading = asyncio.create_task(supervisor.load(new))
    await until(page.busy, what="the load")
    os.kill(pid(supervisor), signal.SIGILL)
    with pytest.raises(Refused, match=r"cannot load m: .*killed by SIGILL"):
        await loading
    assert ears.crashes == [("m", "killed by SIGILL")]
    await until(lambda: supervisor.up)
    assert supervisor.live() == {"m": old.sha256}
    assert len(await post(supervisor, "m", ROW)) == 4


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


async def test_swaps_under_load_lose_no_request(supervisor: Supervisor, tmp_path: Path) -> None:
    paths = [serving.constant(tmp_path / f"{value}.onnx", value) for value in (1.0, 2.0)]
    await supervisor.load(serving.request("m", paths[0]))
    seen: list[float] = []
    swapping = True

    async def keep_asking() -> None:
        while swapping:
            seen.append(float((await post(supervisor, "m", np.zeros(1, "f4")))[0]))

    asking = [asyncio.create_task(keep_asking()) for _ in range(4)]
    for version in range(2, 22):
        before = len(seen)
        await supervisor.load(serving.request("m", paths[version % 2], version=version))
        await until(lambda before=before: len(seen) > before + 4)
    swapping = False
    await asyncio.gather(*asking)
    assert set(seen) == {1.0, 2.0}


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


async def test_unloading_is_for_good(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.load(serving.request("m", models.mlp(tmp_path / "mlp.onnx")))
    await supervisor.unload("m")
    assert supervisor.live() == {}
    with pytest.raises(BadInput, match="cannot unload m: it is not live"):
        await supervisor.unload("m")
    os.kill(pid(supervisor), signal.SIGKILL)
    with pytest.raises(ConnectionError, match="cannot find model 'm'"):
        await post(supervisor, "m", ROW)


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


def test_the_supervisors_process_loads_neither_numpy_nor_onnxruntime() -> None:
    script = textwrap.dedent("""
        import sys, agent.host.supervisor, agent.commandline.serve
        print(sorted({"numpy", "onnxruntime", "onnx", "torch", "uvicorn"} & set(sys.modules)))
    """)
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


async def test_a_load_that_nobody_waits_for_any_more_is_undone(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    wanted = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(wanted)
    heavy = serving.slow(tmp_path / "slow.onnx", layers=1000)
    for name in ("m", "new"):
        loading = asyncio.create_task(supervisor.load(serving.request(name, heavy)))
        page = supervisor._ground.page  # type: ignore[union-attr]  # until the server is at it
        await until(page.busy)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    await until(lambda: not supervisor._mending)

    def runs() -> dict[str, str]:
        status = supervisor.status
        return {m.name: m.sha256 for m in status.models if m.state == "READY"} if status else {}

    await until(lambda: runs() == {"m": wanted.sha256} == supervisor.live())


async def test_a_load_that_is_killed_from_outside_may_be_tried_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    heavy = serving.request("m", serving.slow(tmp_path / "slow.onnx", layers=1000))
    loading = asyncio.create_task(supervisor.load(heavy))
    await until(supervisor._ground.page.busy)  # type: ignore[union-attr]  # it was started
    os.kill(pid(supervisor), signal.SIGKILL)
    with pytest.raises(Unavailable):
        await loading
    await supervisor.load(heavy)
    assert supervisor.live() == {"m": heavy.sha256}


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
