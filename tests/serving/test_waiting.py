"""Requests that wait for a slow model: how many, how long, and for whom it is not run at all."""

import asyncio
import mmap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.serving import api, public_api
from agent.serving.api import Answer, Request
from agent.serving.faults import Busy, Expired
from agent.serving.runs import Ran
from agent.serving.service import Service
from agent.serving.slot import Slots
from agent.serving.variant import Variant
from tests.simulators import serving
from tests.simulators.waiting import until

LONG = np.ones((800, 512), "f4")
SHORT = np.ones((2, 512), "f4")


@pytest.fixture
def page() -> CrashPage:
    return CrashPage(mmap.mmap(-1, crash_page.BYTES))


@pytest.fixture
async def model(page: CrashPage, tmp_path: Path) -> AsyncIterator[Variant]:
    slots = Slots(page=page, most_waiting=4)
    await slots.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx"), index=9))
    yield slots.find("slow")
    await slots.unload("slow")


def start(model: Variant, rows: Any, *, within_s: float | None = None) -> "asyncio.Task[Ran]":
    running = model.infer({"x": rows}, ["y"], within_s=within_s)
    assert not isinstance(running, Ran)
    return asyncio.ensure_future(running)


async def test_beyond_a_number_they_are_told_when_to_come_again(model: Variant) -> None:
    tasks = [start(model, LONG) for _ in range(4)]
    with pytest.raises(Busy, match="4 requests wait for it") as busy:
        start(model, SHORT)
    answer = api.failure(busy.value)
    assert answer.status == 503
    ((name, seconds),) = answer.headers
    assert name == b"retry-after"
    assert int(seconds) >= 1
    for task in tasks:
        task.cancel()


async def test_who_has_gone_is_not_run(model: Variant, page: CrashPage) -> None:
    first = start(model, LONG)
    await until(lambda: page.busy() == (9,), what="the first to run")
    runs: list[int] = []
    model.tap = lambda inputs, _outputs, _answered: runs.append(len(inputs["x"]))
    gone = [start(model, SHORT) for _ in range(3)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)
    last = start(model, np.ones((7, 512), "f4"))
    assert len((await first).arrays[0]) == len(LONG)
    await last
    assert runs == [len(LONG), 7]


async def test_what_nobody_waits_for_any_more_is_stopped(model: Variant, page: CrashPage) -> None:
    runs: list[int] = []
    model.tap = lambda inputs, _outputs, _answered: runs.append(len(inputs["x"]))
    task = start(model, LONG)
    await until(lambda: page.busy() == (9,), what="the run")
    task.cancel()
    assert len((await start(model, SHORT)).arrays[0]) == len(SHORT)
    assert runs == [len(SHORT)]  # the long one came to no end


async def test_a_deadline_is_kept_while_waiting_and_while_running(
    model: Variant, page: CrashPage
) -> None:
    running = start(model, LONG, within_s=0.05)
    waiting = start(model, SHORT, within_s=0.02)
    for task, within in ((waiting, "0.02"), (running, "0.05")):
        with pytest.raises(Expired, match=f"cannot run slow: not done within {within} s"):
            await task
    assert len((await start(model, SHORT, within_s=60.0)).arrays[0]) == len(SHORT)


async def test_a_timeout_in_microseconds_is_a_504(page: CrashPage, tmp_path: Path) -> None:
    slots = Slots(page=page)
    await slots.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx")))

    async def post(timeout_us: int) -> Answer:
        tensor = {"name": "x", "shape": [300, 512], "datatype": "FP32"}
        parameters = {"binary_data_size": 300 * 512 * 4}
        head = {"inputs": [{**tensor, "parameters": parameters}]}
        text = api.as_json({**head, "parameters": {"timeout": timeout_us}}).parts[0]
        headers = {b"inference-header-content-length": str(len(text)).encode()}
        body = memoryview(bytes(text) + bytes(300 * 512 * 4))
        request = Request("POST", "/v2/models/slow/infer", b"", headers, body)
        return await api.answer(public_api.ROUTES, Service(slots), request)

    assert (await post(20_000)).status == 504
    assert (await post(60_000_000)).status == 200
    assert (await post(0)).status == 200
    (status,) = slots.status(acknowledged=0).models
    assert (status.requests, status.failures) == (3, 1)
