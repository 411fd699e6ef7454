"""Tensors through shared memory, by Triton's client: the same answers, and what goes wrong."""

import json
import mmap
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, shared_memory

from agent.errors import BadInput
from agent.host.offer import Offer
from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage
from agent.protocol.oip import InferRequest, Shared, SharedTensor, Wanted
from agent.serving import sharing
from agent.serving.runs import Ran
from agent.serving.shared_memory import FOLDER, Regions
from agent.serving.slot import Slots
from tests.simulators import models, serving
from tests.simulators.serving import Running

FRAME = (3, 64)
Client = triton.InferenceServerClient


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with serving.running(offer=Offer(shared_memory=True)) as server:
        server.load("echo", serving.echo(folder / "echo.onnx", "FP32"))
        server.load("texts", serving.echo(folder / "texts.onnx", "BYTES"))
        server.load("truths", serving.echo(folder / "truths.onnx", "BOOL"))
        server.load("pair", serving.pair(folder / "pair.onnx"))
        server.load("nonzero", nonzero(folder / "nonzero.onnx"))
        server.load("slow", serving.slow(folder / "slow.onnx", layers=4))
        yield server


def nonzero(path: Path) -> Path:
    """Write a model whose output's shape depends on values: `x` [N] -> `y` [1, K]."""
    nodes = [onnx.helper.make_node("NonZero", ["x"], ["y"])]
    kinds = {"y": onnx.TensorProto.INT64}
    return models.save(path, nodes, {}, {"x": ("N",)}, {"y": (1, "K")}, dtypes=kinds)


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client
        client.unregister_system_shared_memory()


class Memory:
    """An object of shared memory that the test made, and its name as a region."""

    def __init__(self, size: int) -> None:
        self.key = f"/trimtab-{uuid.uuid4().hex}"
        self.name = self.key[1:]
        self.handle = shared_memory.create_shared_memory_region(self.name, self.key, size)
        self.size = size

    def register(self, client: Client, *, offset: int = 0, size: int | None = None) -> None:
        client.register_system_shared_memory(self.name, self.key, size or self.size, offset)

    def put(self, array: np.ndarray[Any, Any], *, offset: int = 0) -> None:
        shared_memory.set_shared_memory_region(self.handle, [array], offset)

    def get(self, like: np.ndarray[Any, Any], *, offset: int = 0) -> np.ndarray[Any, Any]:
        kind = np.object_ if like.dtype == object else like.dtype
        return shared_memory.get_contents_as_numpy(self.handle, kind, like.shape, offset).copy()


@pytest.fixture
def memory() -> Iterator[Callable[[int], Memory]]:
    made: list[Memory] = []

    def make(size: int) -> Memory:
        made.append(Memory(size))
        return made[-1]

    yield make
    for each in made:
        shared_memory.destroy_shared_memory_region(each.handle)


def shared_input(name: str, like: Any, region: Memory, *, offset: int = 0) -> triton.InferInput:
    kinds = {"f": "FP32", "b": "BOOL", "O": "BYTES"}
    tensor = triton.InferInput(name, like.shape, kinds[like.dtype.kind])
    tensor.set_shared_memory(region.name, like.nbytes, offset)
    return tensor


def shared_output(name: str, region: Memory, size: int, *, offset: int = 0) -> Any:
    tensor = triton.InferRequestedOutput(name)
    tensor.set_shared_memory(region.name, size, offset)
    return tensor


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


def test_regions_are_told_and_forgotten(client: Client, memory: Callable[[int], Memory]) -> None:
    one, two = memory(4096), memory(8192)
    one.register(client, offset=1024, size=2048)
    two.register(client)
    assert client.get_system_shared_memory_status() == [
        {"name": one.name, "key": one.key, "offset": 1024, "byte_size": 2048},
        {"name": two.name, "key": two.key, "offset": 0, "byte_size": 8192},
    ]
    assert len(client.get_system_shared_memory_status(two.name)) == 1
    client.unregister_system_shared_memory(one.name)
    client.unregister_system_shared_memory(one.name)  # is no error
    with pytest.raises(InferenceServerException, match="is not registered"):
        client.get_system_shared_memory_status(one.name)
    client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


def test_another_object_under_the_same_name_is_another_one(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    frame = np.ones((1, 16), "f4")
    first, second = memory(128), memory(128)
    second.name = first.name
    for region, factor in ((first, 1), (second, 7)):
        region.register(client)
        for _ in range(3):
            region.put(frame * factor)
            client.infer(
                "echo",
                [shared_input("x", frame, region)],
                outputs=[shared_output("y", region, 64, offset=64)],
            )
            assert np.array_equal(region.get(frame, offset=64), frame * factor)
        client.unregister_system_shared_memory(region.name)


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
    (prepared,) = model.prepared.values()
    assert (prepared.bound is not None) == bound
    assert np.array_equal(made.get(np.zeros(64, "u1"), offset=at).view("f4"), np.ones(16))
    for region in regions.unregister("r"):
        model.forget(region)
    assert not model.prepared


@pytest.mark.parametrize(
    ("offset", "size", "why"),
    [(64, 64, "it has 64"), (0, 68, "it has 64"), (2**62, 64, "it has 64")],
)
def test_what_lies_outside_the_region_is_refused(
    client: Client, memory: Callable[[int], Memory], offset: int, size: int, why: str
) -> None:
    region = memory(4096)
    region.register(client, size=64)
    given = triton.InferInput("x", [1, 16], "FP32")
    given.set_shared_memory(region.name, size, offset)
    with pytest.raises(InferenceServerException, match=why) as refused:
        client.infer("echo", [given])
    assert refused.value.status() == "400"


def test_a_place_too_small_for_its_output_is_refused(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    frame = np.ones((1, 16), "f4")
    region = memory(256)
    region.register(client)
    with pytest.raises(InferenceServerException, match="it has 64 bytes, 60 are given"):
        client.infer(
            "echo",
            [shared_input("x", frame, region)],
            outputs=[shared_output("y", region, 60, offset=128)],
        )


def test_an_object_that_was_made_shorter_does_not_bring_the_server_down(
    client: Client, memory: Callable[[int], Memory]
) -> None:
    frame = np.ones((1024, 4), "f4")
    region = memory(2 * frame.nbytes)
    region.register(client)
    inputs = [shared_input("x", frame, region)]
    outputs = [shared_output("y", region, frame.nbytes, offset=frame.nbytes)]
    for _ in range(2):
        client.infer("echo", inputs, outputs=outputs)
    os.truncate(FOLDER / region.name, 4096)
    with pytest.raises(InferenceServerException, match="was made shorter"):
        client.infer("echo", inputs, outputs=outputs)
    assert client.is_server_live()
    os.truncate(FOLDER / region.name, region.size)  # for the one who made it


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"key": "/none", "byte_size": 64}, "No such file"),
        ({"key": "../../etc/passwd", "byte_size": 64}, "is no key"),
        ({"key": "/a/b", "byte_size": 64}, "is no key"),
        ({"key": "/", "byte_size": 64}, "is no key"),
        ({"key": "/..", "byte_size": 64}, "is no key"),
        ({"key": "a\0b", "byte_size": 64}, "is no key"),
        ({"key": "KEY", "byte_size": 4097}, "which has 4096"),
        ({"key": "KEY", "byte_size": 64, "offset": 4090}, "which has 4096"),
        ({"key": "KEY", "byte_size": 0}, "which has 4096"),
        ({"key": "KEY", "byte_size": -1}, "which has 4096"),
        ({"key": "KEY", "byte_size": 64, "offset": -64}, "which has 4096"),
        ({"key": "KEY", "byte_size": 2**70}, "cannot register"),
        ({"key": "KEY"}, "byte_size None"),
        ({"key": 7, "byte_size": 64}, "key 7"),
        ({"key": "KEY", "byte_size": True}, "byte_size True"),
    ],
)
def test_what_cannot_be_registered_is_refused(
    server: Running, memory: Callable[[int], Memory], document: dict[str, Any], why: str
) -> None:
    region = memory(4096)
    if document.get("key") == "KEY":
        document = {**document, "key": region.key}
    body = json_bytes(document)
    path = "/v2/systemsharedmemory/region/r/register"
    status, _, answer = server.ask("POST", path, body)
    assert status == 400
    assert why in answer.decode()


def json_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("body", [b"", b"{", b"7"])
def test_a_registration_that_is_no_json_is_refused(server: Running, body: bytes) -> None:
    assert server.ask("POST", "/v2/systemsharedmemory/region/r/register", body)[0] == 400


def test_a_region_of_paper_is_not_made_real(tmp_path: Path) -> None:
    name = f"trimtab-{uuid.uuid4().hex}"
    (FOLDER / name).touch()
    try:
        os.truncate(FOLDER / name, 2**40)  # takes no memory until somebody touches it
        with pytest.raises(BadInput, match=r"1099511627776 bytes, at most 1073741824"):
            Regions().register("r", key=name, offset=0, byte_size=2**40)
        assert (FOLDER / name).stat().st_blocks == 0
    finally:
        (FOLDER / name).unlink()


def test_a_link_and_a_folder_are_no_shared_memory(tmp_path: Path) -> None:
    name = f"trimtab-{uuid.uuid4().hex}"
    (tmp_path / "secret").write_bytes(bytes(4096))
    (FOLDER / name).symlink_to(tmp_path / "secret")
    try:
        with pytest.raises(BadInput, match="symbolic links"):
            Regions().register("r", key=name, offset=0, byte_size=64)
    finally:
        (FOLDER / name).unlink()
    (FOLDER / name).mkdir()
    try:
        with pytest.raises(BadInput, match="Is a directory"):
            Regions().register("r", key=name, offset=0, byte_size=64)
    finally:
        (FOLDER / name).rmdir()


def test_a_region_in_use_outlives_its_registration(memory: Callable[[int], Memory]) -> None:
    made = memory(4096)
    made.put(np.full(16, 7, "u1"))
    regions = Regions()
    regions.register("r", key=made.key, offset=0, byte_size=4096)
    _, view = regions.view(Shared("r", 0, 16))
    regions.unregister(None)
    assert bytes(view) == bytes([7] * 16)


def test_registered_twice_is_refused(memory: Callable[[int], Memory]) -> None:
    made, regions = memory(64), Regions()
    regions.register("r", key=made.key, offset=0, byte_size=64)
    with pytest.raises(BadInput, match="a region of that name is registered"):
        regions.register("r", key=made.key, offset=0, byte_size=64)


def test_both_data_and_memory_are_one_too_many(server: Running) -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "parameters": parameters, "data": [1]}
    body = json_bytes({"inputs": [tensor]})
    status, _, answer = server.ask("POST", "/v2/models/echo/infer", body)
    assert (status, b"both data and shared memory" in answer) == (400, True)
    del tensor["data"], parameters["shared_memory_byte_size"]
    status, _, answer = server.ask(
        "POST", "/v2/models/echo/infer", json_bytes({"inputs": [tensor]})
    )
    assert (status, b"byte_size None" in answer) == (400, True)
