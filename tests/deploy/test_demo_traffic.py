"""How the demo asks models over HTTP, against a real socket that answers well and badly."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agent.errors import Unavailable
from agent.protocol import oip, oip_requests
from deploy.demo import traffic

DTYPES = st.sampled_from(["?", "u1", "<i4", "<i8", "<f2", "<f4", "<f8"])
TENSORS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8),
    DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=4))),
    min_size=1,
    max_size=3,
)


@given(TENSORS)
def test_the_server_reads_what_we_encode(inputs: dict[str, np.ndarray]) -> None:
    body, json_bytes = traffic.encode(inputs)
    request = oip_requests.read_request(memoryview(body), json_bytes=json_bytes)
    assert request.binary
    assert list(request.inputs) == list(inputs)
    for name, array in inputs.items():
        np.testing.assert_array_equal(request.inputs[name], array)


@given(TENSORS, st.booleans())
def test_we_read_what_the_server_encodes(outputs: dict[str, np.ndarray], binary: bool) -> None:
    finite = {
        name: np.nan_to_num(array) if array.dtype.kind == "f" else array
        for name, array in outputs.items()
        if binary or array.dtype != np.float16
    }
    encoded = oip.write_response(
        {}, [oip.Output(name, array, binary, None) for name, array in finite.items()]
    )
    body = b"".join(encoded.parts)
    found = traffic.decode(body, encoded.json_bytes or len(body))
    for name, array in finite.items():
        np.testing.assert_array_equal(found[name], array)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as `reply` says; keeps who was asked."""

    protocol_version = "HTTP/1.1"
    reply: tuple[int, bytes]
    asked: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append(self.path)
        status, body = self.reply
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server(reply: tuple[int, bytes]) -> Iterator[tuple[str, list[str]]]:
    handler = type("H", (Handler,), {"reply": reply, "asked": []})
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", handler.asked
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


GOOD = json.dumps(
    {"outputs": [{"name": "y", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}]}
).encode()
SAMPLES = [{"x": np.full((1, 3), number, np.int32)} for number in range(8)]


def test_asks_both_models_about_every_sample_each_first_equally_often() -> None:
    seen: list[int] = []
    with server((200, GOOD)) as (url, asked):
        answers = traffic.interleave(url, ["a", "b"], SAMPLES, on_sample=seen.append)
    assert {name: len(found) for name, found in answers.items()} == {"a": 8, "b": 8}
    assert answers["a"][0].outputs["y"].tolist() == [[0.25, 0.75]]
    assert all(answer.latency_ms > 0 for answer in answers["a"])
    assert seen == list(range(1, 9))
    counted = asked[2 * traffic.WARM_UP :]
    firsts = counted[::2]
    assert firsts.count("/v2/models/a/infer") == firsts.count("/v2/models/b/infer") == 4
    assert len(counted) == 16


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((404, b'{"error": "no model named a"}'), "HTTP 404: .*no model named a"),
        ((503, b""), "HTTP 503"),
        ((200, b"not json"), "cannot read the answer of a"),
        ((200, b"{}"), "cannot read the answer of a"),
        ((200, b"[]"), "cannot read the answer of a"),
        (
            (200, GOOD.replace(b"[1, 2]", b"[1, 3]")),
            "cannot read the answer of a",
        ),
        ((200, GOOD.replace(b"FP32", b"FP31")), "cannot read the answer of a"),
    ],
)
def test_a_bad_answer_is_one_clear_error(reply: tuple[int, bytes], says: str) -> None:
    with server(reply) as (url, _), pytest.raises(Unavailable, match=says):
        traffic.interleave(url, ["a"], SAMPLES)


def test_a_server_that_is_gone_is_one_clear_error() -> None:
    with server((200, GOOD)) as (url, _):
        pass
    with pytest.raises(Unavailable, match="cannot ask a: ConnectionRefusedError"):
        traffic.interleave(url, ["a"], SAMPLES)
