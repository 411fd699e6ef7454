"""The v2 protocol over real sockets: Triton's own client, and requests written by hand."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from agent.version import __version__
from tests.simulators import models, serving
from tests.simulators.serving import Running

NUMBERS = ["BOOL", "UINT8", "INT16", "INT32", "UINT64", "INT64", "FP32", "FP64"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with serving.running() as server:
        server.load("mlp", models.mlp(folder / "mlp.onnx"), version=7)
        server.load("slow", serving.slow(folder / "slow.onnx"))
        for datatype in [*NUMBERS, "FP16", "BYTES"]:
            server.load(datatype, serving.echo(folder / f"{datatype}.onnx", datatype))
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


def sample(datatype: str) -> np.ndarray[Any, Any]:
    if datatype == "BYTES":
        return np.array([[b"", b"plain"], ["\u00e4\u20ac\U0001f600".encode(), b"x" * 300]], object)
    values = np.array([[0, 1, 2], [3, 100, 7]])
    return (values % 2 if datatype == "BOOL" else values).astype(triton_to_np_dtype(datatype))


def infer(server: Running, model: str, tensor: Any, **fields: Any) -> tuple[int, Any]:
    body = json.dumps({"inputs": [{"name": "x", **tensor}], **fields}).encode()
    status, _, answer = server.ask("POST", f"/v2/models/{model}/infer", body)
    return status, json.loads(answer)


ROW = {"shape": [1, 8], "datatype": "FP32", "data": [[0.0] * 8]}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
def test_each_datatype_comes_back_as_it_was(
    client: triton.InferenceServerClient, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    array = sample(datatype)
    given = triton.InferInput("x", array.shape, datatype)
    given.set_data_from_numpy(array, binary_data=binary_in)
    wanted = triton.InferRequestedOutput("y", binary_data=binary_out)
    result = client.infer(datatype, [given], outputs=[wanted], request_id="42")
    back = result.as_numpy("y")
    if datatype == "BYTES" and not binary_out:
        back = np.array([text.encode() for text in back.ravel()], object).reshape(back.shape)
    assert np.array_equal(back, array)
    assert back.shape == array.shape
    assert result.get_response()["id"] == "42"


def test_fp16_travels_in_binary_only(client: triton.InferenceServerClient) -> None:
    array = sample("FP16")
    given = triton.InferInput("x", array.shape, "FP16")
    given.set_data_from_numpy(array)
    assert np.array_equal(client.infer("FP16", [given]).as_numpy("y"), array)
    with pytest.raises(InferenceServerException, match="cannot write output 'y' as JSON"):
        client.infer("FP16", [given], outputs=[triton.InferRequestedOutput("y", False)])


def test_a_tensor_of_megabytes_comes_back(client: triton.InferenceServerClient) -> None:
    array = np.random.default_rng(0).random((3, 400_001), np.float32)
    given = triton.InferInput("x", array.shape, "FP32")
    given.set_data_from_numpy(array)
    assert np.array_equal(client.infer("FP32", [given]).as_numpy("y"), array)


def test_server_and_models_describe_themselves(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "7")
    assert not client.is_model_ready("mlp", "8")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata() == {
        "name": "trimtab",
        "version": __version__,
        "extensions": [
            "binary_tensor_data",
            "classification",
            "model_configuration",
            "model_repository",
            "parameters",
            "statistics",
        ],
    }
    assert client.get_model_metadata("mlp") == {
        "name": "mlp",
        "versions": ["7"],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
    }
    index = client.get_model_repository_index()
    assert {"name": "mlp", "version": "7", "state": "READY", "reason": ""} in index


def test_nested_and_flat_json_give_the_same(server: Running) -> None:
    rows = np.arange(16.0).reshape(2, 8)
    answers = [
        infer(server, "mlp", {"shape": [2, 8], "datatype": "FP32", "data": data})
        for data in (rows.tolist(), rows.ravel().tolist())
    ]
    assert answers[0] == answers[1]
    status, answer = answers[0]
    assert status == 200
    assert answer["model_name"] == "mlp"
    assert answer["model_version"] == "7"
    assert "id" not in answer
    assert [each["name"] for each in answer["outputs"]] == ["y"]
    assert answer["outputs"][0]["shape"] == [2, 4]


def test_a_version_can_be_named(server: Running) -> None:
    assert infer(server, "mlp/versions/7", ROW)[0] == 200
    assert infer(server, "mlp/versions/8", ROW) == (
        404,
        {"error": "cannot find version 8 of model 'mlp': version 7 is live"},
    )


def test_a_raw_body_is_the_only_input(server: Running) -> None:
    raw = np.arange(8, dtype="<f4").tobytes()
    header = {"Inference-Header-Content-Length": "0"}
    status, headers, body = server.ask("POST", "/v2/models/mlp/infer", raw, header)
    assert status == 200
    start = int(headers["inference-header-content-length"])
    assert json.loads(body[:start])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert len(body) == start + 16


@pytest.mark.parametrize(
    ("tensor", "fields", "why"),
    [
        ({**ROW, "shape": [1, 7], "data": [0] * 7}, {}, "'x': shape [1, 7], the model takes"),
        ({**ROW, "shape": [8], "data": [0] * 8}, {}, "'x': shape [8], the model takes [-1, 8]"),
        ({**ROW, "datatype": "FP64"}, {}, "'x': FP64, the model takes FP32"),
        ({**ROW, "name": "z"}, {}, "without input 'x': given are 'z'"),
        ({**ROW, "data": [0] * 9}, {}, "'x': 9 values for shape [1, 8]"),
        (ROW, {"outputs": [{"name": "q"}]}, "output 'q': the model has y"),
        (ROW, {"outputs": [{"parameters": {}}]}, "one of outputs has no name"),
        (ROW, {"id": 7}, "id 7 is no string"),
        (ROW, {"parameters": {"binary_data_output": "yes"}}, "binary_data_output 'yes'"),
    ],
)
def test_what_does_not_fit_is_a_400_that_says_what(
    server: Running, tensor: Any, fields: Any, why: str
) -> None:
    status, answer = infer(server, "mlp", tensor, **fields)
    assert status == 400
    assert answer["error"].startswith("cannot ")
    assert why in answer["error"]


def test_an_input_that_the_model_does_not_have_is_named(server: Running) -> None:
    extra = {"name": "extra", **ROW}
    body = json.dumps({"inputs": [{"name": "x", **ROW}, extra]}).encode()
    status, _, answer = server.ask("POST", "/v2/models/mlp/infer", body)
    assert status == 400
    assert json.loads(answer)["error"] == ("cannot use input 'extra': the model has no such input")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nobody/infer", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/mlp/infer", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/", 404),
        ("GET", "/v2/models/mlp/../../etc/passwd", 404),
        ("POST", "/v2/repository/models/mlp/load", 403),
        ("POST", "/v2/repository/models/mlp/unload", 403),
        ("GET", "/v2/trimtab/status", 404),
        ("POST", "/v2/trimtab/open", 404),
    ],
)
def test_what_is_not_there_is_told_as_json(
    server: Running, method: str, path: str, status: int
) -> None:
    found, headers, body = server.ask(method, path, b"{}" if method == "POST" else None)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"].startswith("cannot ")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[]", {}),
        (b'{"inputs": {}}', {}),
        (b'{"inputs": [7]}', {}),
        (b"\xff\xfe", {}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "999"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "-1"}),
        (b'{"inputs": []}', {"Inference-Header-Content-Length": "x"}),
    ],
)
def test_bodies_that_are_no_request_are_a_400(
    server: Running, body: bytes, headers: dict[str, str]
) -> None:
    status, _, answer = server.ask("POST", "/v2/models/mlp/infer", body, headers)
    assert status == 400
    assert json.loads(answer)["error"].startswith("cannot ")


def raw_exchange(server: Running, *pieces: bytes) -> bytes:
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_what_is_no_http_is_a_400(server: Running) -> None:
    assert raw_exchange(server, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("length", ["9" * 5000, "abc", "-1"])
def test_a_length_that_is_none_is_a_400(server: Running, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    status, _, body = server.ask("POST", "/v2/models/mlp/infer", b"{}" * 70_000, headers)
    assert (status, json.loads(body)["error"].partition(":")[2]) == (400, " not a length")


@pytest.mark.parametrize("parameters", [{}, {"binary_data_size": 0}])
def test_a_shape_that_no_memory_could_hold_is_a_400(
    server: Running, parameters: dict[str, int]
) -> None:
    tensor: dict[str, Any] = {"shape": [0, 2**62, 2**62], "datatype": "FP32", "data": []}
    if parameters:
        tensor |= {"parameters": parameters}
    status, answer = infer(server, "FP32", tensor)
    assert status == 400
    assert "is more than memory holds" in answer["error"]


def test_a_body_beyond_the_bound_is_refused_before_it_is_sent(server: Running) -> None:
    head = (
        b"POST /v2/models/mlp/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n"
        b"inference-header-content-length: 10\r\n\r\n"
    )
    assert raw_exchange(server, head, b"some").startswith(b"HTTP/1.1 413")


def test_json_has_a_bound_of_its_own(server: Running) -> None:
    status, headers, body = server.ask("POST", "/v2/models/mlp/infer", b" " * (17 * 2**20))
    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(body)["error"].startswith("cannot accept a body of")


def test_a_chunked_body_is_stopped_at_the_bound(server: Running) -> None:
    head = b"POST /v2/models/mlp/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (2**20, b" " * 2**20)
    assert raw_exchange(server, head, *[piece] * 17).startswith(b"HTTP/1.1 413")


def test_a_client_that_leaves_in_the_middle_harms_nobody(server: Running) -> None:
    host, port = server.address.split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(
                b"POST /v2/models/mlp/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
            )
    assert infer(server, "mlp", ROW)[0] == 200


def test_a_slow_model_does_not_keep_a_quick_one_waiting(server: Running) -> None:
    body = np.zeros((3000, 512), "<f4").tobytes()
    text = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [3000, 512],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(body)},
                }
            ]
        }
    ).encode()
    head = (
        f"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"content-length: {len(text) + len(body)}\r\n"
        f"inference-header-content-length: {len(text)}\r\n\r\n"
    )
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as slow:
        slow.sendall(head.encode() + text + body)
        slow.setblocking(False)
        for _ in range(5):
            assert infer(server, "mlp", ROW)[0] == 200
        with pytest.raises(BlockingIOError):  # the slow one is still at it
            slow.recv(1)
