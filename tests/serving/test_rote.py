"""What is asked again is answered without being read, and nobody can tell but by the time."""

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.serving import api, public_api
from agent.serving.api import Pending
from tests.benchmarks import lean
from tests.benchmarks.lean import Question
from tests.serving.asking import INFER, Asker, rows
from tests.serving.conftest import nonzero
from tests.serving.in_memory import Memory
from tests.simulators import serving


@pytest.fixture
async def asker() -> Asker:
    return Asker()


def row(*values: float, model: str = "m") -> Question:
    return lean.infer(model, "x", np.array(values, "f4"), binary=True)


def told(body: bytes) -> list[float]:
    text, data = body[: body.rindex(b"}") + 1], body[body.rindex(b"}") + 1 :]
    assert json.loads(text)["outputs"][0]["parameters"] == {"binary_data_size": len(data)}
    return [float(value) for value in np.frombuffer(data, "<f4")]


async def taught(asker: Asker, path: Path, value: float = 1.0) -> Asker:
    """A constant model that was asked until it answers by rote."""
    await asker.slots.load(serving.request("m", serving.constant(path, value)))
    for _ in range(2):
        await asker.read(row(0.0, 0.0))
    assert asker.by_rote(row(0.0, 0.0)) is not None
    return asker


async def test_the_second_time_it_is_known(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    question = lean.infer("m", "x", np.zeros((2, 3), "f4"), binary=True)
    assert (await asker.read(question)).rote is not None
    for frame in np.random.default_rng(0).random((5, 2, 3), "f4"):
        asked = lean.infer("m", "x", frame, binary=True)
        by_rote = asker.by_rote(asked)
        assert by_rote is not None
        assert by_rote.endswith(frame.tobytes())
        assert by_rote.partition(b"\r\n\r\n")[2] == b"".join((await asker.read(asked)).parts)


async def test_another_variant_answers_at_once_after_a_swap(asker: Asker, tmp_path: Path) -> None:
    await taught(asker, tmp_path / "1.onnx", 1.0)
    path = serving.constant(tmp_path / "2.onnx", 2.0)
    await asker.slots.load(serving.request("m", path, version=2))
    assert asker.by_rote(row(0.0, 0.0)) is None
    assert told(await asker.ask(row(0.0, 0.0))) == [2.0, 2.0]


async def test_what_was_unloaded_is_known_no_more(asker: Asker, tmp_path: Path) -> None:
    await taught(asker, tmp_path / "m.onnx")
    await asker.slots.unload("m")
    assert asker.by_rote(row(0.0, 0.0)) is None
    assert (await asker.read(row(0.0, 0.0))).status == 404


async def test_whoever_looks_on_sees_each_request(asker: Asker, tmp_path: Path) -> None:
    await taught(asker, tmp_path / "m.onnx")
    seen: list[Any] = []
    variant = asker.slots.find("m")
    variant.tap = lambda inputs, *_: seen.append(inputs["x"].tolist())
    for value in (3.0, 4.0):
        await asker.ask(row(value, 0.0))
    assert seen == [[3.0, 0.0], [4.0, 0.0]]


async def test_each_request_is_counted(asker: Asker, tmp_path: Path) -> None:
    await taught(asker, tmp_path / "m.onnx")
    variant = asker.slots.find("m")
    before = variant.meter.totals()
    for _ in range(7):
        assert asker.by_rote(row(1.0, 2.0)) is not None
    after = variant.meter.totals()
    assert after.answered - before.answered == 7
    assert after.times.run > before.times.run


async def test_a_shape_that_hangs_on_values_is_told_each_time(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", nonzero(tmp_path / "m.onnx")))
    for values in ([1, 0, 1, 1], [1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]):
        body = await asker.ask(row(*values))
        data = body[body.rindex(b"}") + 1 :]
        assert np.array_equal(np.frombuffer(data, "<i8"), np.flatnonzero(np.array(values)))


async def slow(asker: Asker, path: Path) -> Question:
    """A question about a model that needs its thread, and which was answered once."""
    await asker.slots.load(serving.request("m", serving.slow(path, layers=120)))
    beside = serving.constant(path.with_name("other.onnx"), 1.0)
    await asker.slots.load(serving.request("other", beside, index=2))
    question = lean.infer("m", "x", np.ones((8, 512), "f4"), binary=True)
    for _ in range(2):
        await asker.read(question)
    assert asker.by_rote(question) is None
    return question


def later(asker: Asker, asked: Question) -> tuple[Pending | None, "asyncio.Future[bytes | None]"]:
    """Ask on the model's thread; what comes of it is the body of the answer, or None."""
    known = asker.again
    assert known is not None
    assert known.asks(asked.whole)
    done: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    def came(rest: bytes | None, data: bytes) -> None:
        assert data == asked.whole
        done.set_result(rest and rest.partition(b"\r\n\r\n")[2])

    return known.later(asked.whole, None, came), done


async def test_alone_it_holds_nobody_up(asker: Asker, tmp_path: Path) -> None:
    """Also on the loop, unless it takes so long that whoever looks after the server would wait."""
    question = await slow(asker, tmp_path / "m.onnx")
    assert asker.by_rote(question) is None
    await asker.slots.unload("other")
    assert asker.by_rote(question) is not None
    long = serving.slow(tmp_path / "long.onnx", layers=1200)
    await asker.slots.load(serving.request("m", long, version=2))
    for _ in range(2):
        await asker.read(question)
    assert asker.by_rote(question) is None


async def test_a_slow_model_answers_from_its_thread(asker: Asker, tmp_path: Path) -> None:
    await slow(asker, tmp_path / "m.onnx")
    frames = [rows(seed) for seed in range(4)]
    asked = [later(asker, lean.infer("m", "x", frame, binary=True)) for frame in frames]
    for frame, (_, done) in zip(frames, asked, strict=True):
        answer = await done
        assert answer is not None
        assert answer.endswith(frame.tobytes())


async def test_what_nobody_waits_for_is_not_run(asker: Asker, tmp_path: Path) -> None:
    question = await slow(asker, tmp_path / "m.onnx")
    asked = [later(asker, question) for _ in range(3)]
    for pending, _ in asked[1:]:
        assert pending is not None
        pending.cancel()
    assert await asked[0][1] is not None
    variant = asker.slots.find("m")
    assert await variant.drain(within_s=30)
    assert not any(done.done() for _, done in asked[1:])


async def test_a_run_that_is_stopped_does_not_forget_the_question(
    asker: Asker, tmp_path: Path
) -> None:
    question = await slow(asker, tmp_path / "m.onnx")
    pending, _ = later(asker, question)
    await asyncio.sleep(0)
    assert pending is not None
    pending.cancel()
    pending, done = later(asker, question)
    assert pending is not None
    assert await done is not None


async def test_what_is_replaced_takes_no_more(asker: Asker, tmp_path: Path) -> None:
    question = await slow(asker, tmp_path / "m.onnx")
    path = serving.slow(tmp_path / "2.onnx", layers=100)
    await asker.slots.load(serving.request("m", path, version=2))
    assert later(asker, question)[0] is None


async def test_large_tensors_are_not_kept(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    for side, known in ((32, True), (128, False)):
        question = lean.infer("m", "x", np.ones((side, side), "f4"), binary=True)
        for _ in range(2):
            answer = await asker.read(question)
        assert (answer.rote is not None) is known, side


def shared(region: Memory, count: int) -> Question:
    def place(offset: int) -> dict[str, Any]:
        return {
            "shared_memory_region": region.name, "shared_memory_offset": offset,
            "shared_memory_byte_size": 4 * count,
        }  # fmt: skip

    given = {"name": "x", "shape": [1, count], "datatype": "FP32", "parameters": place(0)}
    wanted = {"name": "y", "parameters": place(4 * count)}
    text = json.dumps({"inputs": [given], "outputs": [wanted]})
    return lean.question(INFER.format("m"), text.encode())


@pytest.fixture
def region() -> Iterator[Memory]:
    made = Memory(4096)
    yield made
    Path("/dev/shm", made.name).unlink(missing_ok=True)


async def over_memory(asker: Asker, path: Path, region: Memory) -> Question:
    """A question about shared memory that is answered by rote."""
    await asker.slots.load(serving.request("m", serving.echo(path, "FP32")))
    asker.service.regions.register(region.name, key=region.key, offset=0, byte_size=4096)
    question = shared(region, 8)
    for _ in range(3):
        await asker.read(question)
    assert asker.by_rote(question) is not None
    return question


async def test_frames_in_shared_memory_are_each_run(
    asker: Asker, tmp_path: Path, region: Memory
) -> None:
    question = await over_memory(asker, tmp_path / "m.onnx", region)
    for frame in np.random.default_rng(1).random((4, 1, 8), "f4"):
        region.put(frame)
        assert asker.by_rote(question) is not None
        assert np.array_equal(region.get(frame, offset=32), frame)


async def test_memory_that_was_made_shorter_is_not_read(
    asker: Asker, tmp_path: Path, region: Memory
) -> None:
    question = await over_memory(asker, tmp_path / "m.onnx", region)
    os.truncate(Path("/dev/shm", region.name), 16)
    assert asker.by_rote(question) is None
    answer = await asker.read(question)
    assert answer.status == 400
    assert b"made shorter" in b"".join(answer.parts)


async def test_memory_that_was_unregistered_is_let_go(
    asker: Asker, tmp_path: Path, region: Memory
) -> None:
    question = await over_memory(asker, tmp_path / "m.onnx", region)
    request = api.Request("POST", f"/v2/systemsharedmemory/region/{region.name}/unregister", b"",
                          {}, memoryview(b""))  # fmt: skip
    assert (await api.answer(public_api.ROUTES, asker.service, request)).status == 200
    assert asker.by_rote(question) is None
    assert (await asker.read(question)).status == 404
