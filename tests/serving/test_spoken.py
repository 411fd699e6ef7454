"""JSON that says the same again with other data in it: read alike, refused alike."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import lean
from tests.benchmarks.lean import Question
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


async def test_data_of_other_lengths_are_the_same_question(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    for _ in range(4):
        assert (await asker.read(in_json("[1, 2, 3]", id="a"))).status == 200
    assert asker.again is not None
    for data in ("[1, 2, 3]", "[4,5,6]", "[-7.25, 8e3, 0.000001]", "[" + " " * 700 + "1, 2, 3]"):
        asked = in_json(data, id="a")
        told = asker.by_rote(asked)
        assert told is not None
        head, _, body = told.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        document = json.loads(body)
        assert np.allclose(document["outputs"][0]["data"], json.loads(data))
        assert document["id"] == "a"


@pytest.mark.parametrize("data", WRONG)
async def test_what_is_wrong_in_json_is_never_answered_by_rote(
    asker: Asker, tmp_path: Path, data: str
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    for _ in range(4):
        await asker.read(in_json("[1, 2, 3]"))
    assert asker.by_rote(in_json("[1, 2, 3]")) is not None
    assert asker.by_rote(in_json(data)) is None
    assert asker.by_rote(in_json("[1, 2, 3]", id="b")) is None
    assert asker.by_rote(in_json("[1, 2, 3", shape="[1, 3]")) is None


async def test_a_length_that_is_not_the_length_is_read_the_usual_way(
    asker: Asker, tmp_path: Path
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    asked = in_json("[1, 2, 3]")
    for _ in range(4):
        await asker.read(asked)
    size = str(len(asked.body)).encode()
    assert asker.by_rote(asked) is not None
    for said in (b"0" + size, b"+" + size, size + b" ", b"1" + size, size[:-1], b"", b"9" * 20):
        head = asked.head.replace(b"Length: " + size, b"Length: " + said)
        assert head != asked.head
        changed = Question(head, asked.body)
        by_rote = asker.by_rote(changed)
        assert by_rote is None or said == b"0" + size
    assert asker.by_rote(Question(asked.head, asked.body + b" ")) is None


X = '"name":"x","shape":[1,3],"datatype":"FP32"'
SPELT = [
    (f'{{"inputs":[{{{X},"data":%s}}]}}', True),
    (f'{{"inputs":[{{"data" :\n %s ,{X}}}], "id":"a"}}', True),
    (f'{{"inputs":[{{{X},"d\\u0061ta":%s}}],"parameters":{{"data":[7,7,7]}}}}', False),
    (f'{{"id":"data","inputs":[{{{X},"data":%s}}]}}', False),
    (f'{{"inputs":[{{{X},"data":%s,"data":[7,7,7]}}]}}', False),
]


@pytest.mark.parametrize(("spelt", "by_rote"), SPELT)
async def test_however_it_is_spelt_each_gets_its_own_answer(
    asker: Asker, tmp_path: Path, spelt: str, by_rote: bool
) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    told = []
    for data in ("[1, 2, 3]", "[1, 2, 3]", "[1, 2, 3]", "[4, 5, 6]", "[8,9,10.5]", "[4, 5, 6]"):
        asked = lean.question("/v2/models/m/infer", (spelt % data).encode())
        told.append(asker.by_rote(asked) is not None)
        usual = json.loads(b"".join((await asker.read(asked)).parts))
        assert json.loads(await asker.ask(asked)) == usual
    assert told[3:] == [by_rote] * 3


async def test_by_rote_ends_with_the_variant(asker: Asker, tmp_path: Path) -> None:
    await asker.slots.load(serving.request("m", serving.echo(tmp_path / "m.onnx", "FP32")))
    asked = in_json("[1, 2, 3]")
    for _ in range(4):
        await asker.read(asked)
    assert asker.by_rote(asked) is not None
    await asker.slots.load(
        serving.request("m", serving.echo(tmp_path / "2.onnx", "FP32"), version=2)
    )
    assert asker.by_rote(asked) is None
