"""Triton's own client, unchanged, over all that it can ask; and each error that it may get."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from agent.host.life import Pace
from agent.host.offer import Offer
from tests.simulators import models, serving
from tests.simulators.serving import Running

A = np.array([1.5, -2.0, 3.25], "f4")
B = np.array([0.5, 4.0, -1.25], "f4")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with serving.running(offer=Offer(model_control=True)) as server:
        server.load("pair", serving.pair(folder / "pair.onnx"), version=3)
        server.load("mlp", models.mlp(folder / "mlp.onnx"))
        server.load("texts", serving.echo(folder / "texts.onnx", "BYTES"))
        server.load("halves", serving.echo(folder / "halves.onnx", "FP16"))
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, concurrency=4) as client:
        yield client


def given(name: str, array: np.ndarray[Any, Any], *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput(name, array.shape, triton_name(array))
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


def triton_name(array: np.ndarray[Any, Any]) -> str:
    return {"f": {2: "FP16", 4: "FP32"}.get(array.itemsize, "FP64"), "O": "BYTES"}[array.dtype.kind]


def both(*, binary: bool = True) -> list[triton.InferInput]:
    return [given("a", A, binary=binary), given("b", B, binary=binary)]


@pytest.mark.parametrize("binary", [True, False])
def test_several_inputs_and_outputs(client: triton.InferenceServerClient, binary: bool) -> None:
    wanted = [triton.InferRequestedOutput(name, binary) for name in ("difference", "sum")]
    result = client.infer("pair", both(binary=binary), outputs=wanted, request_id="7")
    assert np.array_equal(result.as_numpy("sum"), A + B)
    assert np.array_equal(result.as_numpy("difference"), A - B)
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == ("pair", "3")
    assert [output["name"] for output in response["outputs"]] == ["difference", "sum"]
    assert response["id"] == "7"


def test_outputs_that_are_not_asked_for_stay_away(client: triton.InferenceServerClient) -> None:
    result = client.infer("pair", both(), outputs=[triton.InferRequestedOutput("sum")])
    assert result.get_output("difference") is None
    everything = client.infer("pair", both(), model_version="3")
    assert np.array_equal(everything.as_numpy("difference"), A - B)


def test_mixed_forms_in_one_request(client: triton.InferenceServerClient) -> None:
    wanted = [
        triton.InferRequestedOutput("sum", binary_data=False),
        triton.InferRequestedOutput("difference", binary_data=True),
    ]
    inputs = [given("a", A, binary=False), given("b", B)]
    result = client.infer("pair", inputs, outputs=wanted)
    assert np.array_equal(result.as_numpy("sum"), A + B)
    assert np.array_equal(result.as_numpy("difference"), A - B)


def test_many_at_once_without_waiting(client: triton.InferenceServerClient) -> None:
    asked = [client.async_infer("pair", both(), request_id=str(at)) for at in range(20)]
    answers = [each.get_result() for each in asked]
    assert [each.get_response()["id"] for each in answers] == [str(at) for at in range(20)]
    assert all(np.array_equal(each.as_numpy("sum"), A + B) for each in answers)


async def test_the_asyncio_client(server: Running) -> None:
    async with triton_aio.InferenceServerClient(server.address) as client:
        assert await client.is_server_ready()
        answers = await asyncio.gather(*(client.infer("pair", both()) for _ in range(8)))
    assert all(np.array_equal(each.as_numpy("sum"), A + B) for each in answers)


def test_texts_and_halves(client: triton.InferenceServerClient) -> None:
    texts = np.array([["a", "\u00fc\u20ac"], ["", "long" * 100]], object)
    back = client.infer("texts", [given("x", texts)]).as_numpy("y")
    assert [each.decode() for each in back.ravel()] == texts.ravel().tolist()
    halves = np.array([[0.5, 65504, -0.0, np.inf]], "f2")
    assert np.array_equal(client.infer("halves", [given("x", halves)]).as_numpy("y"), halves)


@pytest.mark.parametrize("binary", [True, False])
def test_classes_instead_of_values(client: triton.InferenceServerClient, binary: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 8)).astype("f4")
    scores = client.infer("mlp", [given("x", rows)]).as_numpy("y")
    wanted = triton.InferRequestedOutput("y", binary_data=binary, class_count=2)
    found = client.infer("mlp", [given("x", rows)], outputs=[wanted]).as_numpy("y")
    assert found.shape == (3, 2)
    for row, texts in zip(scores, found, strict=True):
        best = [text if isinstance(text, str) else text.decode() for text in texts]
        indexes = [int(text.split(":")[1]) for text in best]
        assert indexes == np.argsort(-row)[:2].tolist()
        assert [float(text.split(":")[0]) for text in best] == pytest.approx(row[indexes], abs=1e-6)


def test_what_the_server_and_its_models_are(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pair", "3")
    extensions = client.get_server_metadata()["extensions"]
    assert "model_repository(unload_dependents)" in extensions
    assert "system_shared_memory" not in extensions
    assert [each["name"] for each in client.get_model_metadata("pair")["inputs"]] == ["a", "b"]
    config = client.get_model_config("pair", "3")
    assert config["output"] == [
        {"name": "sum", "data_type": "TYPE_FP32", "dims": [-1]},
        {"name": "difference", "data_type": "TYPE_FP32", "dims": [-1]},
    ]
    assert client.get_model_config("texts")["input"][0]["data_type"] == "TYPE_STRING"


def index(client: triton.InferenceServerClient, name: str) -> dict[str, str]:
    (entry,) = (each for each in client.get_model_repository_index() if each["name"] == name)
    return dict(entry)


def test_unloading_and_loading_again(server: Running, client: triton.InferenceServerClient) -> None:
    client.unload_model("texts", unload_dependents=True)
    assert index(client, "texts") == {
        "name": "texts", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded by a client"
    }  # fmt: skip
    ready = server.ask("POST", "/v2/repository/index", b'{"ready": true}')[2]
    assert b"texts" not in ready
    assert b"pair" in ready
    assert not client.is_model_ready("texts")
    with pytest.raises(InferenceServerException, match="a client unloaded it") as refused:
        client.infer("texts", [given("x", np.array([["a"]], object))])
    assert refused.value.status() == "404"
    with pytest.raises(InferenceServerException, match="a client unloaded it"):
        client.unload_model("texts")
    client.load_model("texts")
    assert client.is_model_ready("texts")
    client.load_model("texts")  # what is live is loaded anew
    assert index(client, "texts")["state"] == "READY"


def test_statistics_count_each_request(client: triton.InferenceServerClient) -> None:
    def stats() -> dict[str, Any]:
        (found,) = client.get_inference_statistics("pair", "3")["model_stats"]
        return dict(found)

    before = stats()
    for _ in range(3):
        client.infer("pair", both())
    with pytest.raises(InferenceServerException):
        client.infer("pair", [given("a", A)])
    after = stats()
    assert after["inference_count"] - before["inference_count"] == 3
    kinds = {"success": 3, "fail": 1, "queue": 3, "compute_input": 3, "compute_infer": 3}
    for kind, count in kinds.items():
        old, new = before["inference_stats"][kind], after["inference_stats"][kind]
        assert new["count"] - old["count"] == count
        assert new["ns"] > old["ns"]
    assert after["last_inference"] > before["last_inference"] > 0
    assert after["batch_stats"][0]["compute_infer"]["count"] == after["execution_count"]
    assert after["memory_usage"][0]["type"] == "CPU"
    everybody = client.get_inference_statistics()["model_stats"]
    assert {each["name"] for each in everybody} == {"pair", "mlp", "texts", "halves"}


Ask = Callable[[triton.InferenceServerClient], object]
WRONG: list[tuple[str, Ask, str, str]] = [
    ("unknown model", lambda c: c.infer("nobody", both()), "404", "cannot find model 'nobody'"),
    ("unknown version", lambda c: c.infer("pair", both(), "9"), "404", "cannot find version 9"),
    ("metadata", lambda c: c.get_model_metadata("nobody"), "404", "cannot find model"),
    ("config", lambda c: c.get_model_config("nobody"), "404", "cannot find model"),
    ("statistics", lambda c: c.get_inference_statistics("nobody"), "404", "cannot find model"),
    ("missing input", lambda c: c.infer("pair", both()[:1]), "400", "without input 'b'"),
    ("shape", lambda c: c.infer("mlp", [given("x", A)]), "400", "the model takes"),
    (
        "datatype",
        lambda c: c.infer("mlp", [given("x", np.zeros((1, 8)))]),
        "400",
        "input 'x': FP64, the model takes FP32",
    ),
    (
        "unknown output",
        lambda c: c.infer("pair", both(), outputs=[triton.InferRequestedOutput("z")]),
        "400",
        "cannot give output 'z'",
    ),
    (
        "one output twice",
        lambda c: c.infer("pair", both(), outputs=[triton.InferRequestedOutput("sum")] * 2),
        "400",
        "cannot give an output twice",
    ),
    (
        "classes of texts",
        lambda c: c.infer(
            "texts",
            [given("x", np.array([["a"]], object))],
            outputs=[triton.InferRequestedOutput("y", class_count=1)],
        ),
        "400",
        "cannot classify output 'y'",
    ),
    (
        "halves as JSON",
        lambda c: c.infer(
            "halves",
            [given("x", np.zeros((1, 1), "f2"))],
            outputs=[triton.InferRequestedOutput("y", binary_data=False)],
        ),
        "400",
        "FP16 needs binary_data",
    ),
    ("a sequence", lambda c: c.infer("pair", both(), sequence_id=5), "501", "cannot keep a seq"),
    ("timeout", lambda c: c.infer("pair", both(), timeout=-5), "400", "timeout -5"),
    ("load nobody", lambda c: c.load_model("nobody"), "404", "cannot find model 'nobody'"),
    ("unload nobody", lambda c: c.unload_model("nobody"), "404", "cannot find model 'nobody'"),
    ("load config", lambda c: c.load_model("mlp", config="{}"), "501", "with 'config'"),
    (
        "shared memory",
        lambda c: c.register_system_shared_memory("r", "/k", 64),
        "403",
        "cannot use shared memory: it is not allowed",
    ),
    ("its status", lambda c: c.get_system_shared_memory_status(), "403", "is not allowed"),
    ("CUDA", lambda c: c.get_cuda_shared_memory_status(), "501", "not offered"),
    ("trace", lambda c: c.get_trace_settings(), "501", "not offered"),
    ("trace of one", lambda c: c.update_trace_settings("mlp", {}), "501", "not offered"),
    ("log", lambda c: c.update_log_settings({}), "501", "not offered"),
]


@pytest.mark.parametrize(("what", "ask", "status", "why"), WRONG, ids=[each[0] for each in WRONG])
def test_each_error_has_its_status_and_its_reason(
    client: triton.InferenceServerClient, what: str, ask: Ask, status: str, why: str
) -> None:
    with pytest.raises(InferenceServerException) as error:
        ask(client)
    assert error.value.status() == status
    assert error.value.message().startswith("cannot ")
    assert why in error.value.message()


@pytest.mark.parametrize("body", [b"7", b"{", b'{"ready": 1}', b'{"parameters": 3}'])
def test_repository_requests_that_are_none_are_a_400(server: Running, body: bytes) -> None:
    paths = ["index"] if b"ready" in body else ["models/mlp/load", "models/mlp/unload"]
    for path in paths:
        assert server.ask("POST", f"/v2/repository/{path}", body)[0] == 400


def test_what_a_client_unloaded_stays_so_when_the_server_is_killed(tmp_path: Path) -> None:
    offer = Offer(model_control=True)
    with serving.running(offer=offer, pace=Pace(poll_s=0.05)) as server:
        with triton.InferenceServerClient(server.address) as client:
            server.load("mlp", models.mlp(tmp_path / "mlp.onnx"))
            server.load("pair", serving.pair(tmp_path / "pair.onnx"))
            client.unload_model("mlp")
            until_told(server)
        assert server.supervisor.status is not None
        os.kill(server.supervisor.status.pid, signal.SIGKILL)
        with triton.InferenceServerClient(server.address) as client:
            assert client.is_model_ready("pair")  # answered by the next process
            assert not client.is_model_ready("mlp")
            client.load_model("mlp")
            assert client.is_model_ready("mlp")


def until_told(server: Running) -> None:
    deadline = time.monotonic() + 20
    while server.supervisor.status is None or not server.supervisor.status.resting:
        assert time.monotonic() < deadline, "no heartbeat told"
        time.sleep(0.01)


def test_clients_may_not_unload_unless_that_is_allowed(tmp_path: Path) -> None:
    with serving.running() as server, triton.InferenceServerClient(server.address) as client:
        server.load("mlp", models.mlp(tmp_path / "mlp.onnx"))
        for ask in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="not allowed") as refused:
                ask("mlp")
            assert refused.value.status() == "403"
        assert client.is_model_ready("mlp")
