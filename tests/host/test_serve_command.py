"""`trimtab serve` as a person runs it: a process, a URL, exit codes."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.host import listening
from tests.simulators import models

COMMAND = [sys.executable, "-P", "-m", "agent", "serve"]


def fails(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_a_signal_and_leaves_nothing(tmp_path: Path, ending: signal.Signals) -> None:
    path, unix = models.mlp(tmp_path / "mlp.onnx"), tmp_path / "s.sock"
    with subprocess.Popen(
        [*COMMAND, f"m={path}", f"n={path}", "--port", "0", "--unix", str(unix)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in "mn"]
        address = re.search(r"curl http://(\S+?)/v2/models/m$", said[0].strip())
        assert address, said
        connection = http.client.HTTPConnection(address[1], timeout=20)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(unix))
            caller.sendall(b"GET /v2/models/n HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert caller.recv(100).startswith(b"HTTP/1.1 200 OK")
        row = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [1] * 8}
        connection.request("POST", "/v2/models/m/infer", json.dumps({"inputs": [row]}))
        answer = json.loads(connection.getresponse().read())
        assert answer["outputs"][0]["shape"] == [1, 4]
        connection.close()
        process.send_signal(ending)
        assert process.wait(20) == 0
    assert not unix.exists()
    with pytest.raises(ConnectionRefusedError):
        connection.connect()


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    code, line = fails(f"m={tmp_path}/none.onnx")
    assert code == 2
    assert line.endswith("none.onnx: No such file or directory")


def test_what_is_not_onnx_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no model")
    code, line = fails(f"m={tmp_path}/text.onnx", "--port", "0")
    assert code == 2
    assert re.match(r"trimtab serve: cannot load /.*/text\.onnx: ", line)


def test_a_busy_port_is_unavailable(tmp_path: Path) -> None:
    with listening.tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        code, line = fails(f"m={models.mlp(tmp_path / 'm.onnx')}", "--port", str(port))
    assert code == 4
    assert line == f"trimtab serve: cannot listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["just-a-file.onnx"], "write NAME=MODEL.onnx"),
        (["m=FILE", "m=FILE"], "two models under one name"),
        (["a b=FILE"], "cannot use model name 'a b'"),
        (["m=FILE", "--port", "99999"], "port 99999"),
        (["m=FILE", "--threads", "0"], "0 threads"),
    ],
)
def test_usage_errors_are_bad_input(tmp_path: Path, arguments: list[str], why: str) -> None:
    path = str(models.mlp(tmp_path / "m.onnx"))
    code, line = fails(*(word.replace("FILE", path) for word in arguments))
    assert code == 2
    assert why in line
