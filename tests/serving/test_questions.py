"""A request that says the same again is answered as the first one was, whatever its data are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadInput
from agent.protocol import oip
from agent.serving import runtime
from agent.serving.question import Written
from agent.serving.questions import Questions
from agent.serving.runtime import Model
from compression.job import Runtime
from tests.serving.conftest import nonzero
from tests.simulators import serving

LENGTH = oip.HEADER_LENGTH.lower().encode()
HEAD = {"model_name": "echo", "model_version": "1"}


def loaded(path: Path) -> Model:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return runtime.load(path, sha256=sha256, runtime=Runtime())


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return loaded(serving.echo(tmp_path_factory.mktemp("models") / "echo.onnx", "FP32"))


def said(shape: tuple[int, ...], size: int, **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": shape}
    tensor["parameters"] = {"binary_data_size": size}
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}, **more}
    return json.dumps(document).encode()


def answer(questions: Questions, text: bytes, tail: bytes) -> Written:
    """Ask, run and write, as a request passes through."""
    headers = {LENGTH: str(len(text)).encode()}
    question, asked = questions.read(headers, memoryview(text + tail))
    return question.write(HEAD, questions.model.run(asked.inputs, question.names))


def parts(written: Written) -> tuple[Any, bytes]:
    length = int(dict(written.headers)[LENGTH])
    whole = b"".join(written.parts)
    return json.loads(whole[:length]), whole[length:]


@given(frames=st.lists(st.binary(min_size=24, max_size=24), min_size=2, max_size=5))
def test_each_frame_gets_its_own_answer(echo: Model, frames: list[bytes]) -> None:
    questions, text = Questions(echo), said((2, 3), 24)
    for frame in frames:
        document, data = parts(answer(questions, text, frame))
        assert data == frame
        assert document["outputs"][0]["shape"] == [2, 3]
        assert document["model_name"] == "echo"


@pytest.mark.parametrize("length", [0, 20, 23, 25, 48])
def test_data_of_another_length_are_refused_also_the_second_time(echo: Model, length: int) -> None:
    questions, text = Questions(echo), said((2, 3), 24)
    answer(questions, text, bytes(24))
    with pytest.raises(BadInput, match="cannot read"):
        answer(questions, text, bytes(length))
    assert parts(answer(questions, text, b"\x01" * 24))[1] == b"\x01" * 24


def test_what_does_not_fit_the_model_is_refused_each_time(echo: Model) -> None:
    questions = Questions(echo)
    text = said((2, 3), 24).replace(b"FP32", b"INT32")
    for _ in range(3):
        with pytest.raises(BadInput, match="input 'x'"):
            answer(questions, text, bytes(24))


def test_an_id_comes_back_with_the_request_that_gave_it(echo: Model) -> None:
    questions = Questions(echo)
    for name in ("a", "b", "a"):
        assert parts(answer(questions, said((1, 1), 4, id=name), bytes(4)))[0]["id"] == name
    assert "id" not in parts(answer(questions, said((1, 1), 4), bytes(4)))[0]


def test_an_unaligned_tail_is_read_right(echo: Model) -> None:
    questions = Questions(echo)
    row = np.arange(6, dtype="<f4")
    for spaces in range(5):
        text = said((2, 3), 24) + b" " * spaces
        for _ in range(2):
            assert parts(answer(questions, text, row.tobytes()))[1] == row.tobytes()


def test_shapes_that_hang_on_values_are_told_each_time(tmp_path: Path) -> None:
    questions = Questions(loaded(nonzero(tmp_path / "nonzero.onnx")))
    for row in ([1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1]):
        document, data = parts(answer(questions, said((4,), 16), np.array(row, "<f4").tobytes()))
        places = np.nonzero(row)[0]
        assert document["outputs"][0]["shape"] == [1, len(places)]
        assert document["outputs"][0]["parameters"] == {"binary_data_size": 8 * len(places)}
        assert np.array_equal(np.frombuffer(data, "<i8"), places)


def test_strings_are_as_long_as_they_are(tmp_path: Path) -> None:
    questions = Questions(loaded(serving.echo(tmp_path / "texts.onnx", "BYTES")))
    for text in (b"one", b"another", b""):
        tail = len(text).to_bytes(4, "little") + text
        asked = said((1, 1), len(tail)).replace(b"FP32", b"BYTES")
        for _ in range(2):
            document, data = parts(answer(questions, asked, tail))
            assert data == tail
            assert document["outputs"][0]["parameters"] == {"binary_data_size": len(tail)}


def test_only_so_many_questions_are_kept(echo: Model) -> None:
    questions = Questions(echo)
    for number in range(600):
        assert parts(answer(questions, said((1, 1), 4, id=str(number)), bytes(4)))[1] == bytes(4)
    assert len(questions) == 256
