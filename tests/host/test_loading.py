"""Loads that fail, die, are given up or come one after the other under load."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from agent.errors import BadInput, Corrupt, Refused, Unavailable
from agent.host.client import NotNow
from agent.host.supervisor import Supervisor
from tests.host.asking import ROW, Ears, pid, post
from tests.simulators import models, serving
from tests.simulators.waiting import until


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
    await until(lambda: not supervisor._loads.mending)

    def runs() -> dict[str, str]:
        status = supervisor.status
        return {m.name: m.sha256 for m in status.models if m.state == "READY"} if status else {}

    await until(lambda: runs() == {"m": wanted.sha256} == supervisor.live())


async def test_what_serves_is_back_at_once_however_long_the_load_takes_that_nobody_waits_for(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    old = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(old)
    page = supervisor._ground.page  # type: ignore[union-attr]  # until the server is at it
    new = models.mlp(tmp_path / "new.onnx", seed=1)
    os.mkfifo(tmp_path / "pipe")  # instead of the file: it is read for as long as the test needs
    os.link(tmp_path / "pipe", tmp_path / "slow.onnx")
    slow = serving.request("m", new, version=2).model_copy(
        update={"path": str(tmp_path / "slow.onnx")}
    )
    loading = asyncio.create_task(supervisor.load(slow))
    await until(page.busy)
    loading.cancel()
    await asyncio.wait({loading})
    await until(lambda: not supervisor._loads.mending)
    await supervisor.load(old)  # as RESTORING does
    assert page.busy(), "the other one is still being read"
    content = new.read_bytes()
    new.replace(tmp_path / "slow.onnx")
    await asyncio.to_thread((tmp_path / "pipe").write_bytes, content)
    await until(lambda: not page.busy(), what="the end of the load")
    third = serving.request("m", models.mlp(tmp_path / "third.onnx", seed=2), version=3)
    reply = await supervisor.load(third)
    assert reply.replaced_sha256 == old.sha256, "nothing else has served in between"


async def test_what_could_not_be_put_back_is_not_told_as_if_it_served(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    old = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(old)
    Path(old.path).unlink()
    (tmp_path / "bad.onnx").write_bytes(b"no onnx")
    new = serving.request("m", tmp_path / "bad.onnx", version=2, swap="replace")
    with pytest.raises(BadInput):
        await supervisor.load(new)
    assert supervisor.live() == {}
    with pytest.raises(ConnectionError, match="404"):
        await post(supervisor, "m", ROW)


async def test_what_does_not_fit_now_leaves_what_serves_and_says_so_at_once(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    old = serving.request("m", models.mlp(tmp_path / "mlp.onnx"))
    await supervisor.load(old)
    with pytest.raises(NotNow, match="it needs about 100000000 MiB"):
        await supervisor.load(old.model_copy(update={"needs_mib": 1e8, "version": 2}))
    assert supervisor.live() == {"m": old.sha256}
    assert not supervisor._loads.mending, "there is nothing to undo"
    assert len(await post(supervisor, "m", ROW)) == 4


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


async def test_unloading_is_for_good(supervisor: Supervisor, tmp_path: Path) -> None:
    await supervisor.load(serving.request("m", models.mlp(tmp_path / "mlp.onnx")))
    await supervisor.unload("m")
    assert supervisor.live() == {}
    with pytest.raises(BadInput, match="cannot unload m: it is not live"):
        await supervisor.unload("m")
    os.kill(pid(supervisor), signal.SIGKILL)
    with pytest.raises(ConnectionError, match="cannot find model 'm'"):
        await post(supervisor, "m", ROW)
