"""Slots in one process: loading beside, proving, switching, draining and giving memory back."""

import asyncio
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import BadInput, Corrupt, Refused, Unavailable
from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.serving import variant, vitals
from agent.serving.faults import NotFound
from agent.serving.runs import Ran
from agent.serving.slot import Slots
from agent.serving.variant import Variant
from compression import samples
from compression.job import Runtime
from tests.simulators import models, serving
from tests.simulators.waiting import until


@pytest.fixture
def page() -> CrashPage:
    return CrashPage(mmap.mmap(-1, crash_page.BYTES))


@pytest.fixture
def slots(page: CrashPage) -> Slots:
    return Slots(page=page)


async def run(model: Variant, inputs: dict[str, Any], outputs: Sequence[str] = ("y",)) -> Any:
    """The first output, whichever way it runs."""
    running = model.infer(inputs, outputs)
    return (running if isinstance(running, Ran) else await running).arrays[0]


async def ask(slots: Slots, name: str, *, rows: int = 1) -> float:
    return float((await run(slots.find(name), {"x": np.ones(rows, "f4")}))[0])


async def test_a_variant_replaces_the_other_whole(slots: Slots, tmp_path: Path) -> None:
    one = serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0))
    two = serving.request("m", serving.constant(tmp_path / "2.onnx", 2.0), version=2)
    assert (await slots.load(one)).replaced_sha256 is None
    assert await ask(slots, "m") == 1.0
    assert (await slots.load(two)).replaced_sha256 == one.sha256
    assert await ask(slots, "m") == 2.0
    await slots.unload("m")
    with pytest.raises(NotFound):
        slots.find("m")


async def test_the_old_one_finishes_what_is_inside(
    slots: Slots, tmp_path: Path, page: CrashPage
) -> None:
    old = serving.request("m", serving.slow(tmp_path / "slow.onnx"), index=11)
    await slots.load(old)
    rows = np.random.default_rng(0).random((1500, 512), np.float32)
    running = asyncio.create_task(run(slots.find("m"), {"x": rows}))
    await until(lambda: page.busy() == (11,), what="the run")
    new = serving.request("m", serving.constant(tmp_path / "c.onnx", 3.0), index=12)
    loading = asyncio.create_task(slots.load(new))
    await until(lambda: slots.find("m").request.index == 12, what="the switch")
    assert await ask(slots, "m") == 3.0
    assert not loading.done(), "the old one is still being drained"
    assert np.allclose(await running, rows)
    assert (await loading).replaced_sha256 == old.sha256
    assert page.busy() == ()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.write_bytes(b"no onnx at all"), BadInput),
        (lambda path: path.write_bytes(b""), BadInput),
        (lambda path: path.write_bytes(models.cnn(path).read_bytes()[:-900]), BadInput),
    ],
)
async def test_a_load_that_fails_leaves_the_old_one(
    slots: Slots, tmp_path: Path, make: object, error: type[Exception]
) -> None:
    await slots.load(serving.request("m", serving.constant(tmp_path / "1.onnx", 1.0)))
    broken = tmp_path / "broken.onnx"
    make(broken)  # type: ignore[operator]  # a lambda of the table above
    with pytest.raises(error, match=r"^cannot load .*broken\.onnx: "):
        await slots.load(serving.request("m", broken))
    assert await ask(slots, "m") == 1.0


async def test_bytes_with_another_hash_are_never_loaded(slots: Slots, tmp_path: Path) -> None:
    path = serving.constant(tmp_path / "1.onnx", 1.0)
    with pytest.raises(Corrupt, match=r"its sha256 is [0-9a-f]{12}, not ffffffffffff"):
        await slots.load(serving.request("m", path).model_copy(update={"sha256": "f" * 64}))
    asked = serving.request("m", path)
    path.unlink()
    with pytest.raises(BadInput, match="No such file"):
        await slots.load(asked)


async def test_a_probe_that_is_answered_otherwise_stops_the_switch(
    slots: Slots, tmp_path: Path
) -> None:
    path = models.mlp(tmp_path / "mlp.onnx")
    x = models.sample_inputs(path, 3)["x"]
    await slots.load(serving.request("m", path))
    true = await run(slots.find("m"), {"x": x})
    rows = [{"x": row[np.newaxis]} for row in x]
    for expected, outcome in ((true, 200.0), (true + 1.0, None)):
        probe = tmp_path / "probe.npz"
        samples.write(probe, rows, expected=[{"y": row[np.newaxis]} for row in expected])
        asked = serving.request("m", path, version=2, probe_path=str(probe))
        if outcome is None:
            with pytest.raises(Refused, match=r"answers its probe at .* dB"):
                await slots.load(asked.model_copy(update={"version": 3}))
        else:
            reply = await slots.load(asked)
            assert reply.probe_sqnr_db is not None
            assert reply.probe_sqnr_db > 100
    assert slots.find("m").request.version == 2
    (tmp_path / "probe.npz").write_bytes(b"PK truncated")
    with pytest.raises(BadInput, match=r"^cannot probe the model: "):
        await slots.load(asked.model_copy(update={"version": 4}))


async def test_quick_models_run_on_the_loop_and_slow_ones_beside_it(
    slots: Slots, tmp_path: Path
) -> None:
    await slots.load(serving.request("quick", models.mlp(tmp_path / "mlp.onnx")))
    await slots.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx")))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await run(slots.find("quick"), {"x": np.zeros((1, 8), "f4")})
    before = turns
    await run(slots.find("quick"), {"x": np.zeros((1, 8), "f4")})
    assert turns == before, "a quick model gives no turn away"
    for rows in (np.zeros((800, 512), "f4"),) * 2:
        before = turns
        await run(slots.find("slow"), {"x": rows})
    assert turns > before, "the loop turns while a slow model runs"
    turning.cancel()


async def test_a_large_request_to_a_quick_model_does_not_hold_the_loop(
    slots: Slots, tmp_path: Path, page: CrashPage
) -> None:
    await slots.load(serving.request("m", serving.slow(tmp_path / "m.onnx", layers=4), index=5))
    model = slots.find("m")
    for _ in range(20):  # 8 MFLOP each: quick
        await run(model, {"x": np.zeros((1, 512), "f4")})
    large = asyncio.create_task(run(model, {"x": np.zeros((8000, 512), "f4")}))
    await until(lambda: page.busy() == (5,), what="the loop to turn while it runs")
    await large


async def test_too_many_waiting_requests_are_refused_not_kept(slots: Slots, tmp_path: Path) -> None:
    await slots.load(serving.request("slow", serving.slow(tmp_path / "slow.onnx")))
    rows = {"x": np.zeros((16, 512), "f4")}
    model = slots.find("slow")
    await run(model, {"x": np.zeros((300, 512), "f4")})  # now it is known to be slow
    work = [run(model, rows) for _ in range(variant.MOST_WAITING + 5)]
    results = await asyncio.gather(*work, return_exceptions=True)
    assert sum(isinstance(each, Unavailable) for each in results) == 5


async def test_in_serial_mode_one_thing_runs_at_a_time(page: CrashPage, tmp_path: Path) -> None:
    slots = Slots(page=page, serial=True)
    path = serving.slow(tmp_path / "slow.onnx", layers=8)
    for index, name in enumerate("abc", start=1):
        await slots.load(serving.request(name, path, index=index))
    rows = {"x": np.zeros((256, 512), "f4")}
    work = [asyncio.create_task(run(slots.find(n), rows)) for n in "abcabc"]
    while not all(task.done() for task in work):
        assert len(page.busy()) <= 1
        await asyncio.sleep(0)
    slots.run_apart()
    await run(slots.find("a"), rows)


async def test_runtime_options_and_free_dimensions_are_obeyed(slots: Slots, tmp_path: Path) -> None:
    runtime = Runtime(threads=2, arena=False, optimization="disabled")
    await slots.load(serving.request("m", models.cnn(tmp_path / "c.onnx"), runtime=runtime))
    image = {"image": np.zeros((3, 3, 32, 32), "f4")}
    assert (await run(slots.find("m"), image, ["logits"])).shape == (3, 10)


async def test_memory_comes_back_over_many_swaps(slots: Slots, tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "big.onnx", hidden=300_000)  # about 14 MB of weights
    request = serving.request("m", path)
    for _ in range(5):
        await slots.load(request)
    before = vitals.rss_mib()
    for _ in range(25):
        await slots.load(request)
    # It moves by a model or two with where the blocks lie; kept models would be 350 MiB.
    assert vitals.rss_mib() - before < 60
