"""Swaps where memory is short: beside, in its place, or refused with the figures."""

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import BadInput, Unavailable
from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.protocol.private import LoadRequest
from agent.serving import api, fitting, public_api, slot
from agent.serving.api import Answer, Request
from agent.serving.faults import Busy, Expired
from agent.serving.gate import Gate
from agent.serving.service import Service
from agent.serving.slot import Slots
from tests.simulators import serving
from tests.simulators.waiting import until

Choice = Callable[..., str]


@pytest.fixture
def page() -> CrashPage:
    return CrashPage(mmap.mmap(-1, crash_page.BYTES))


def wanting(swap: str = "auto", needs_mib: float | None = 100.0) -> LoadRequest:
    return LoadRequest(
        name="m", version=1, path="/m", sha256="0" * 64, index=1, swap=swap, needs_mib=needs_mib
    )  # type: ignore[arg-type]  # `swap` is checked by LoadRequest


@pytest.mark.parametrize(
    ("swap", "available", "replaced", "how"),
    [
        ("auto", 100.0, 50.0, "beside"),
        ("auto", 99.0, 50.0, "replace"),
        ("auto", 50.0, 50.0, "replace"),
        ("auto", 100.0, None, "beside"),
        ("beside", 100.0, 50.0, "beside"),
        ("replace", 900.0, 50.0, "replace"),
        ("replace", 100.0, None, "beside"),
    ],
)
def test_how_it_is_swapped_follows_from_memory(
    swap: str, available: float, replaced: float | None, how: str
) -> None:
    found = fitting.choose(
        wanting(swap), file_mib=1, available_mib=available, replaced_mib=replaced
    )
    assert found == how


@pytest.mark.parametrize(
    ("swap", "available", "replaced", "why"),
    [
        ("auto", 49.0, 50.0, r"needs about 100 MiB, 49 MiB are available, 99 MiB with what it"),
        ("auto", 99.0, None, r"needs about 100 MiB, 99 MiB are available$"),
        ("beside", 99.0, 50.0, r"needs about 100 MiB, 99 MiB are available$"),
        (
            "replace",
            10.0,
            50.0,
            r"needs about 100 MiB, 10 MiB are available, 60 MiB with what it replaces$",
        ),
    ],
)
def test_what_fits_no_way_is_refused_with_the_figures(
    swap: str, available: float, replaced: float | None, why: str
) -> None:
    with pytest.raises(Unavailable, match=r"^cannot load m: it " + why):
        fitting.choose(wanting(swap), file_mib=1, available_mib=available, replaced_mib=replaced)


def test_what_nobody_measured_is_forecast_from_the_file() -> None:
    asked = wanting(needs_mib=None)
    assert fitting.choose(asked, file_mib=50, available_mib=100, replaced_mib=None) == "beside"
    with pytest.raises(Unavailable, match=r"about 102 MiB \(forecast, not measured\)"):
        fitting.choose(asked, file_mib=51, available_mib=100, replaced_mib=None)


async def post(service: Service, value: float = 1.0, **parameters: Any) -> Answer:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [value]}
    body = api.as_json({"inputs": [tensor], "parameters": parameters}).parts[0]
    request = Request("POST", "/v2/models/m/infer", b"", {}, memoryview(body))
    return await api.answer(public_api.ROUTES, service, request)


def said(answer: Answer) -> float:
    assert answer.status == 200, bytes(answer.parts[0])
    return float(bytes(answer.parts[0]).split(b'"data":[')[1].split(b"]")[0])


async def test_a_load_that_does_not_fit_is_refused_before_it_starts(
    page: CrashPage, tmp_path: Path
) -> None:
    available = 500.0
    slots = Slots(page=page, available_mib=lambda: available)
    one = serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0))
    await slots.load(one)
    available = 10.0
    big = serving.request("m", serving.constant(tmp_path / "2.onnx", 2.0), needs_mib=300.0)
    Path(big.path).unlink()  # it is not even looked at
    with pytest.raises(Unavailable, match="needs about 300 MiB, 10 MiB are available"):
        await slots.load(big)
    assert said(await post(Service(slots))) == 1.0


async def test_what_served_before_comes_back_whatever_memory_there_is(
    page: CrashPage, tmp_path: Path
) -> None:
    slots = Slots(page=page, careful=False, available_mib=lambda: 0.0)
    path = serving.constant(tmp_path / "1.onnx", 1.0)
    await slots.load(serving.request("m", path, needs_mib=300.0))
    assert said(await post(Service(slots))) == 1.0


async def test_requests_wait_while_a_model_is_replaced(
    page: CrashPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(slots := Slots(page=page))
    await slots.load(serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0)))
    two = serving.request(
        "m", serving.constant(tmp_path / "2.onnx", 2.0), swap="replace", version=2
    )
    held = hold_loading(slots, monkeypatch)
    loading = asyncio.create_task(slots.load(two))
    await until(lambda: slots.find("m").gate is not None, what="the gate")
    waiting = [asyncio.create_task(post(service)) for _ in range(5)]
    late = await post(service, timeout=1000)  # a millisecond
    assert (late.status, b"not replaced within 0.001 s" in late.parts[0]) == (504, True)
    ready = Request("GET", "/v2/models/m/ready", b"", {}, memoryview(b""))
    assert (await api.answer(public_api.ROUTES, service, ready)).status == 503
    assert not any(task.done() for task in waiting)
    held.set()
    reply = await loading
    assert reply.gap_ms > 0
    assert [said(answer) for answer in await asyncio.gather(*waiting)] == [2.0] * 5
    assert (await api.answer(public_api.ROUTES, service, ready)).status == 200


def hold_loading(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Loads wait for the event that is given back."""
    prepared, held = slots._prepared, asyncio.Event()

    async def wait(request: LoadRequest) -> Any:
        await held.wait()
        return await prepared(request)

    monkeypatch.setattr(slots, "_prepared", wait)
    return held


async def test_what_served_comes_back_where_the_other_cannot_be_loaded(
    page: CrashPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(slots := Slots(page=page))
    await slots.load(serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0)))
    (tmp_path / "broken.onnx").write_bytes(b"no onnx at all")
    broken = serving.request("m", tmp_path / "broken.onnx", swap="replace")
    held = hold_loading(slots, monkeypatch)
    loading = asyncio.create_task(slots.load(broken))
    await until(lambda: slots.find("m").gate is not None, what="the gate")
    waiting = asyncio.create_task(post(service))
    held.set()
    with pytest.raises(BadInput, match=r"cannot load .*broken\.onnx"):
        await loading
    assert said(await waiting) == 1.0
    assert said(await post(service)) == 1.0


async def test_where_neither_can_be_loaded_nothing_is_live_and_nobody_waits(
    page: CrashPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(slots := Slots(page=page))
    path = serving.constant(tmp_path / "1.onnx", 1.0)
    await slots.load(serving.request("m", path))
    held = hold_loading(slots, monkeypatch)
    gone = serving.request("m", path, swap="replace")
    loading = asyncio.create_task(slots.load(gone))
    await until(lambda: slots.find("m").gate is not None, what="the gate")
    waiting = asyncio.create_task(post(service))
    path.unlink()
    held.set()
    with pytest.raises(BadInput, match="No such file"):
        await loading
    assert (await waiting).status == 404


async def test_a_model_whose_requests_do_not_end_is_not_replaced(
    page: CrashPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot, "DRAIN_S", 0.01)
    slots = Slots(page=page)
    await slots.load(serving.request("m", serving.slow(tmp_path / "slow.onnx"), index=5))
    rows = {"x": np.ones((1500, 512), "f4")}
    running = slots.find("m").infer(rows, ["y"])
    assert not isinstance(running, tuple)
    other = serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0), swap="replace")
    with pytest.raises(Unavailable, match=r"cannot replace m: requests are in it after 0\.01 s"):
        await slots.load(other)
    assert (await running).arrays[0][0, 0] == 1.0
    again = slots.find("m").infer({"x": rows["x"][:1]}, ["y"])
    assert not isinstance(again, tuple)
    assert (await again).arrays[0].shape == (1, 512)


async def test_a_load_that_nobody_waits_for_goes_on_to_its_end(
    page: CrashPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(slots := Slots(page=page))
    await slots.load(serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0)))
    held = hold_loading(slots, monkeypatch)
    two = serving.request("m", serving.constant(tmp_path / "2.onnx", 2.0), swap="replace")
    loading = asyncio.create_task(slots.load(two))
    await until(lambda: slots.find("m").gate is not None, what="the gate")
    loading.cancel()
    held.set()
    assert said(await post(service)) == 2.0


async def test_only_so_many_wait_at_a_gate() -> None:
    gate = Gate("m", most_waiting=2)
    waiting = [asyncio.create_task(gate.passed(within_s=None)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="it is being replaced, and 2 requests wait"):
        await gate.passed(within_s=None)
    waiting[0].cancel()
    await asyncio.sleep(0)
    with pytest.raises(Expired):  # whoever goes away makes room
        await gate.passed(within_s=0.001)
    gate.open()
    await waiting[1]
