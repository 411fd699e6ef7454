"""Tensors through shared memory, by Triton's client: the same answers."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.protocol.oip import InferRequest, Shared, SharedTensor, Wanted
from agent.serving import sharing
from agent.serving.runs import Ran
from agent.serving.shared_memory import Regions
from agent.serving.slot import Slots
from tests.serving.in_memory import Client, Memory, shared_input, shared_output
from tests.simulators import serving

FRAME = (3, 64)


def test_frames_go_through_memory_again_and_again(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    frames = [np.random.default_rng(at).random(FRAME, "f4") for at in range(5)]
    size = frames[0].nbytes
    region = memory(2 * size)
    region.register(client)
    inputs = [shared_input("x", frames[0], region)]
    outputs = [shared_output("y", region, size, offset=size)]
    for frame in frames:  # the first is copied, the others are bound
        region.put(frame)
        result = client.infer("echo", inputs, outputs=outputs)
        assert np.array_equal(region.get(frame, offset=size), frame)
        told = result.get_output("y")
        assert told["shape"] == list(FRAME)
        assert "data" not in told
        assert told["parameters"] == {
            "shared_memory_region": region.name,
            "shared_memory_offset": size,
            "shared_memory_byte_size": size,
        }


def test_in_memory_or_in_the_body_as_each_tensor_likes(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    a, b = np.arange(4, dtype="f4"), np.ones(4, "f4")
    region = memory(64)
    region.register(client)
    region.put(a)
    second = triton.InferInput("b", [4], "FP32")
    second.set_data_from_numpy(b)
    outputs = [
        shared_output("sum", region, 16, offset=16),
        triton.InferRequestedOutput("difference"),
    ]
    for _ in range(2):
        result = client.infer("pair", [shared_input("a", a, region), second], outputs=outputs)
        assert np.array_equal(region.get(a, offset=16), a + b)
        assert np.array_equal(result.as_numpy("difference"), a - b)


def test_where_input_and_output_share_bytes_nothing_is_read_half_written(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    a = np.arange(8, dtype="f4")
    region = memory(128)
    region.register(client)
    inputs = [shared_input("a", a, region), shared_input("b", a, region)]
    outputs = [
        shared_output("sum", region, 32, offset=16),
        shared_output("difference", region, 32, offset=64),
    ]
    for _ in range(3):
        region.put(a)
        client.infer("pair", inputs, outputs=outputs)
        assert np.array_equal(region.get(a, offset=16), a + a)
        assert not region.get(a, offset=64).any()


def test_places_that_kernels_cannot_load_from_are_copied(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    frame = np.arange(8, dtype="f4").reshape(2, 4)
    region = memory(256)
    region.register(client)
    inputs = [shared_input("x", frame, region, offset=3)]
    outputs = [shared_output("y", region, 32, offset=101)]
    for factor in (1, 2, 3):
        region.put(np.frombuffer((frame * factor).tobytes(), "u1"), offset=3)
        client.infer("echo", inputs, outputs=outputs)
        back = region.get(np.zeros(32, "u1"), offset=101)
        assert np.array_equal(back.view("f4").reshape(2, 4), frame * factor)


def test_truths_and_texts_go_through_memory_too(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    truths = np.array([[True, False, True]])
    region = memory(256)
    region.register(client)
    for _ in range(2):
        region.put(np.array([[2, 0, 1]], "u1"))  # a byte of 2 is true, and comes out as 1
        client.infer(
            "truths",
            [shared_input("x", truths, region)],
            outputs=[shared_output("y", region, 8, offset=8)],
        )
        assert region.get(np.zeros(3, "u1"), offset=8).tolist() == [1, 0, 1]
    texts = np.array([["one", "\u00fc"]], object)
    packed = shared_memory_bytes(texts)
    region.put(np.frombuffer(packed, "u1"), offset=32)
    given = triton.InferInput("x", [1, 2], "BYTES")
    given.set_shared_memory(region.name, len(packed), 32)
    client.infer("texts", [given], outputs=[shared_output("y", region, 64, offset=128)])
    assert [each.decode() for each in region.get(texts, offset=128).ravel()] == ["one", "\u00fc"]


def shared_memory_bytes(texts: Any) -> bytes:
    parts = [text.encode() for text in texts.ravel()]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def test_an_output_whose_shape_depends_on_values(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    region = memory(128)
    region.register(client)
    inputs = [shared_input("x", np.zeros(4, "f4"), region)]
    outputs = [shared_output("y", region, 64, offset=64)]
    for values in ([1, 0, 2, 0], [1, 0, 0, 5], [1, 1, 1, 1], [0, 0, 0, 0], [0, 9, 0, 0]):
        region.put(np.array(values, "f4"))
        result = client.infer("nonzero", inputs, outputs=outputs)
        shape = result.get_output("y")["shape"]
        expected = np.flatnonzero(values)
        assert shape == [1, len(expected)]
        assert region.get(np.zeros(len(expected), "i8"), offset=64).tolist() == expected.tolist()


def test_a_model_on_its_thread_is_bound_as_well(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    rows = np.random.default_rng(0).random((400, 512), "f4")
    region = memory(2 * rows.nbytes)
    region.register(client)
    inputs = [shared_input("x", rows, region)]
    outputs = [shared_output("y", region, rows.nbytes, offset=rows.nbytes)]
    for factor in (1, 2, 3):
        region.put(rows * factor)
        client.infer("slow", inputs, outputs=outputs)
        assert np.allclose(region.get(rows, offset=rows.nbytes), rows * factor)


@pytest.mark.parametrize(("at", "bound"), [(64, True), (0, False), (3, False), (32, False)])
async def test_only_what_can_be_used_where_it_lies_is_bound(
    tmp_path: Path, memory: Callable[[int], Memory], at: int, bound: bool
) -> None:
    slots = Slots(page=CrashPage(mmap.mmap(-1, crash_page.BYTES)))
    await slots.load(serving.request("echo", serving.echo(tmp_path / "echo.onnx", "FP32")))
    made, regions = memory(256), Regions()
    regions.register("r", key=made.key, offset=0, byte_size=256)
    tensor = SharedTensor(Shared("r", 0, 64), np.dtype("f4"), (1, 16))
    wanted = Wanted("y", False, shared=Shared("r", at, 64))
    asked = InferRequest({}, outputs=(wanted,), shared={"x": tensor})
    model = slots.find("echo")
    for _ in range(2):
        made.put(np.ones(16, "f4"))
        running = sharing.run(regions, model, asked, ["y"])
        assert isinstance(running, Ran) or await running
    (prepared,) = model.known.prepared.values()
    assert (prepared.bound is not None) == bound
    assert np.array_equal(made.get(np.zeros(64, "u1"), offset=at).view("f4"), np.ones(16))
    for region in regions.unregister("r"):
        model.known.forget(region)
    assert not model.known.prepared
