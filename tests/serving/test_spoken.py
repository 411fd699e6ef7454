"""JSON that says the same again with other data in it: read alike, refused alike."""

import json
from pathlib import Path

import pytest

from tests.serving.asking import Asker, in_json
from tests.simulators import serving


@pytest.fixture
async def asker() -> Asker:
    return Asker()


WRONG = ["[1, 2]", "[1, 2, 3, 4]", "[1, 2, null]", "[1, 2, true]", '[1, 2, "3"]', "[1, 2, 1e39]",
         "[[1, 2], [3]]", "[]", "{}", "7", "[1, 2, " + "9" * 400 + "]"]  # fmt: skip


@pytest.mark.parametrize("data", WRONG)
async def test_what_is_wrong_in_json_is_refused_as_the_first_time(
    asker: Asker, tmp_path: Path, data: str
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    first = await asker.read(in_json(data))
    for _ in range(3):
        assert (await asker.read(in_json("[1, 2, 3]"))).status == 200
    known = asker.slots.find("m").known.spoken
    assert any(known.values())
    again = await asker.read(in_json(data))
    assert (again.status, again.parts) == (first.status, first.parts)
    assert first.status == 400
    answer = json.loads(b"".join((await asker.read(in_json("[4, 5, 6]"))).parts))
    assert answer["outputs"][0]["data"] == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT32", "INT64", "UINT64", "FP64"])
async def test_numbers_of_every_kind_are_read_alike(
    asker: Asker, tmp_path: Path, kind: str
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", kind)))
    for data in ("[0, 1, 127]", "[0, 1, 127]", "[3, 2, 1]", "[5, 5, 5]"):
        answer = await asker.read(in_json(data, kind=kind))
        assert json.loads(b"".join(answer.parts))["outputs"][0]["data"] == json.loads(data)
    assert any(asker.slots.find("m").known.spoken.values())
    beyond = await asker.read(in_json(f"[0, 1, {2**64}]", kind=kind))
    assert beyond.status == (200 if kind == "FP64" else 400)


async def test_a_shape_of_another_kind_of_number_is_not_the_same(
    asker: Asker, tmp_path: Path
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    for _ in range(3):
        assert (await asker.read(in_json("[1, 2, 3]"))).status == 200
    for shape in ("[1.0, 3]", "[true, 3]", "[1, 3.0]"):
        assert (await asker.read(in_json("[1, 2, 3]", shape))).status == 400


async def test_names_that_look_like_the_protocol_are_names(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    for data in ("[1, 2, 3]", "[1, 2, 3]", "[4, 5, 6]", "[7, 8, 9]"):
        answer = await asker.read(in_json(data, id='"data":[]'))
        document = json.loads(b"".join(answer.parts))
        assert document["id"] == '"data":[]'
        assert document["outputs"][0]["data"] == json.loads(data)
