"""The examples that people start from run as they say, against a real server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.http as triton

from agent.host.life import Pace
from agent.host.offer import Offer
from deploy.examples.camera import Eye, picture
from tests.simulators import models, serving
from tests.simulators.serving import Running

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with serving.running(offer=Offer(shared_memory=True), pace=Pace(poll_s=0.05)) as server:
        server.load("m", models.cnn(folder / "cnn.onnx"))
        server.load("texts", serving.echo(folder / "texts.onnx", "BYTES"))
        yield server


@pytest.mark.parametrize(
    ("example", "model", "says"),
    [
        ("with_tritonclient", "m", "output logits (1, 10): ["),
        ("with_tritonclient", "texts", "output y (1, 1): [b'']"),
        ("with_plain_http", "m", "output logits [1, 10]: ["),
        ("with_plain_http", "texts", "output y [1, 1]: ['']"),
        ("camera", "m", "100 frames, "),
    ],
)
def test_an_example_runs(server: Running, example: str, model: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{example}.py", "--url", server.address, "--model", model],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert done.stderr == ""


def test_an_unknown_model_is_told_in_the_servers_words(server: Running) -> None:
    done = subprocess.run(
        [
            sys.executable, EXAMPLES / "with_plain_http.py", "--url", server.address,
            "--model", "nobody",
        ],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Failed: 404: cannot find model 'nobody'" in done.stderr


def test_a_camera_goes_on_after_the_server_was_killed(server: Running) -> None:
    with triton.InferenceServerClient(server.address) as client:
        eye = Eye(client, "m")
        try:
            picture(eye.frame, 1)
            eye.look()
            before = eye.answers["logits"].copy()
            assert server.supervisor.status is not None
            os.kill(server.supervisor.status.pid, signal.SIGKILL)
            eye.answers["logits"][...] = 0
            eye.look()
            assert (eye.answers["logits"] == before).all()
        finally:
            eye.close()
