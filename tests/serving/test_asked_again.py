"""One connection that asks again and again, in any mixture and in any pieces."""

import itertools
import json
import socket
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks import lean
from tests.benchmarks.lean import Question
from tests.serving.asking import in_json, rows
from tests.simulators import serving
from tests.simulators.serving import Running

NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


def written(values: list[float], form: str) -> Question:
    array = np.array([values], "f4")
    if form == "JSON":
        return in_json(json.dumps(values))
    return lean.infer("m", "x", array.reshape(3, 1) if form == "tall" else array, binary=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving.running() as made:
        made.load("m", serving.echo(tmp_path_factory.mktemp("models") / "m.onnx", "FP32"))
        yield made


@settings(max_examples=40, deadline=None)
@given(
    asked=st.lists(st.tuples(NUMBERS, st.sampled_from(["JSON", "row", "tall"])), min_size=4),
    cuts=st.lists(st.integers(1, 4000), max_size=6),
)
def test_on_one_connection_each_gets_its_own_answer(
    server: Running, asked: list[tuple[list[float], str]], cuts: list[int]
) -> None:
    """Of any mixture, in any pieces."""
    stream = b"".join(written(values, form).whole for values, form in asked)
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in itertools.pairwise(at):
            line.sendall(stream[start:end])
        read = line.makefile("rb")
        for values, form in asked:
            head = _head(read.readline)
            body = read.read(int(head[b"content-length"]))
            if form == "JSON":
                assert np.array(json.loads(body)["outputs"][0]["data"], "f4").tolist() == values
            else:
                assert body.endswith(np.array(values, "<f4").tobytes())


def _head(line: Callable[[], bytes]) -> dict[bytes, bytes]:
    assert b" 200 " in line()
    fields = iter(line, b"\r\n")
    return dict(each.rstrip().lower().split(b": ", 1) for each in fields)


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving.running() as made:
        path = serving.slow(tmp_path_factory.mktemp("models") / "m.onnx", layers=120)
        made.load("m", path)
        made.load("other", serving.constant(path.with_name("other.onnx"), 1.0), index=2)
        yield made


def test_what_runs_on_a_thread_is_answered_by_rote_too(slow_server: Running) -> None:
    """In its order, also when many ask at once and more is asked before the answer has come."""
    host, port = slow_server.address.split(":")
    lines = [socket.create_connection((host, int(port)), timeout=60) for _ in range(4)]
    try:
        for turn in range(4):
            for at, line in enumerate(lines):
                frames = (rows(10 * turn + at), rows(100 + at))
                questions = [lean.infer("m", "x", frame, binary=True).whole for frame in frames]
                line.sendall(questions[0])
                line.sendall(questions[1])
            for at, line in enumerate(lines):
                read = line.makefile("rb")
                for frame in (rows(10 * turn + at), rows(100 + at)):
                    body = read.read(int(_head(read.readline)[b"content-length"]))
                    assert body.endswith(frame.tobytes())
    finally:
        for line in lines:
            line.close()


def test_whoever_fetches_slowly_gets_it_all(slow_server: Running) -> None:
    host, port = slow_server.address.split(":")
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.connect((host, int(port)))
        asked = [rows(seed) for seed in range(12)]
        read = line.makefile("rb")
        for frame in asked:
            line.sendall(lean.infer("m", "x", frame, binary=True).whole)
        for frame in asked:
            body = read.read(int(_head(read.readline)[b"content-length"]))
            assert body.endswith(frame.tobytes())


def test_whoever_leaves_while_it_runs_harms_nobody(slow_server: Running) -> None:
    host, port = slow_server.address.split(":")
    question = lean.infer("m", "x", rows(1), binary=True)
    for _ in range(5):
        line = lean.Line((host, int(port)), question)
        line.ask()
        line.ask()
        line.send()
        line.close()
    line = lean.Line((host, int(port)), question)
    for _ in range(3):
        line.ask()
    line.close()
