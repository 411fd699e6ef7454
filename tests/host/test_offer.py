"""What is offered to whom: addresses that others reach, and tokens."""

import http.client
import json
from pathlib import Path

import pytest

from agent.config import Settings
from agent.errors import BadConfig, BadInput
from agent.host.offer import INFERENCE, Offer, is_loopback, read_token
from agent.wiring import offering
from tests.host.test_serve_command import fails
from tests.simulators import models, serving

TOKEN = "a-long-enough-token"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_device_may_always_ask(host: str) -> None:
    assert is_loopback(host)
    INFERENCE.check(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "", "edge.local", "127.1"])
def test_others_may_ask_only_where_somebody_said_so(host: str, token_file: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot listen on .*: whoever reaches it could use"):
        INFERENCE.check(host)
    Offer(to_anybody=True).check(host)
    Offer(token_file=token_file).check(host)


@pytest.mark.parametrize(
    "text", ["", "\n", "short", "two words of a token", "\u00e4" * 20, "a\nb" * 20]
)
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="cannot use the token in"):
        read_token(path)


def test_a_token_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read the token in .*: No such file"):
        Offer(token_file=tmp_path / "none").check("127.0.0.1")


def test_an_agent_that_strangers_could_ask_is_a_matter_of_its_configuration(
    token_file: Path,
) -> None:
    with pytest.raises(BadConfig, match="cannot listen on"):
        offering.offer(Settings(http_host="0.0.0.0"))
    assert offering.offer(Settings(http_host="0.0.0.0", http_token_file=token_file)).token_file


def test_trimtab_serve_refuses_to_listen_to_strangers(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "mlp.onnx")
    code, line = fails(f"m={path}", "--port", "0", "--host", "0.0.0.0")
    assert code == 2
    assert "cannot listen on 0.0.0.0: whoever reaches it could use the models" in line


def test_a_token_guards_the_models_and_not_the_health(tmp_path: Path, token_file: Path) -> None:
    with serving.running(offer=Offer(token_file=token_file)) as server:
        server.load("mlp", models.mlp(tmp_path / "mlp.onnx"))
        row = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [0] * 8}
        body = json.dumps({"inputs": [row]}).encode()
        for shown, expected in (("", 401), ("Bearer wrong", 401), (f"Bearer {TOKEN}", 200)):
            headers = {"Authorization": shown} if shown else {}
            status, fields, _ = server.ask("POST", "/v2/models/mlp/infer", body, headers)
            assert status == expected
            assert ("www-authenticate" in fields) is (expected == 401)
        assert server.ask("GET", "/v2/models/mlp")[0] == 401
        assert server.ask("GET", "/v2/health/ready")[0] == 200


def test_a_refused_body_is_not_waited_for(tmp_path: Path, token_file: Path) -> None:
    with serving.running(offer=Offer(token_file=token_file)) as server:
        line = http.client.HTTPConnection(server.address, timeout=20)
        line.putrequest("POST", "/v2/models/mlp/infer")
        line.putheader("Content-Length", "1000000")
        line.endheaders()
        assert line.getresponse().status == 401
        line.close()
