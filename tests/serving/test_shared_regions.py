"""Regions of shared memory: registered, replaced, forgotten, and all that may be wrong there."""

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from agent.errors import BadInput
from agent.protocol.oip import Shared
from agent.serving.shared_memory import FOLDER, Regions
from tests.serving.in_memory import Client, Memory, shared_input, shared_output
from tests.simulators.serving import Running


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
    sharer: Running, memory: Callable[[int], Memory], document: dict[str, Any], why: str
) -> None:
    region = memory(4096)
    if document.get("key") == "KEY":
        document = {**document, "key": region.key}
    body = json_bytes(document)
    path = "/v2/systemsharedmemory/region/r/register"
    status, _, answer = sharer.ask("POST", path, body)
    assert status == 400
    assert why in answer.decode()


def json_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("body", [b"", b"{", b"7"])
def test_a_registration_that_is_no_json_is_refused(sharer: Running, body: bytes) -> None:
    assert sharer.ask("POST", "/v2/systemsharedmemory/region/r/register", body)[0] == 400


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


def test_both_data_and_memory_are_one_too_many(sharer: Running) -> None:
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 64}
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "parameters": parameters, "data": [1]}
    body = json_bytes({"inputs": [tensor]})
    status, _, answer = sharer.ask("POST", "/v2/models/echo/infer", body)
    assert (status, b"both data and shared memory" in answer) == (400, True)
    del tensor["data"], parameters["shared_memory_byte_size"]
    status, _, answer = sharer.ask(
        "POST", "/v2/models/echo/infer", json_bytes({"inputs": [tensor]})
    )
    assert (status, b"byte_size None" in answer) == (400, True)
