"""Sockets that systemd opened: taken as the public ones, by the process they are meant for."""

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from agent.errors import BadInput
from agent.host import listening
from tests.simulators import models

SERVE = "exec 3<&{0}; LISTEN_PID=$$ LISTEN_FDS=1 exec {1} -P -m agent serve m={2} --port 1"


def test_a_server_answers_on_the_socket_that_it_was_given(tmp_path: Path) -> None:
    model = models.mlp(tmp_path / "mlp.onnx")
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        with subprocess.Popen(
            ["bash", "-c", SERVE.format(given.fileno(), sys.executable, model)],
            pass_fds=[given.fileno()], stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                assert f"http://127.0.0.1:{port}/v2/models/m" in process.stdout.readline()
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/m/ready") as ready:
                    assert ready.status == 200
            finally:
                process.terminate()
            assert process.wait(20) == 0


def meant_for_us(count: int = 1, *, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDNAMES": "x"}


def test_they_are_taken_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        environment = meant_for_us()
        (taken,) = listening.handed_over(environment, first=os.dup(given.fileno()))
        with taken:
            assert taken.getsockname() == given.getsockname()
            assert not taken.get_inheritable()
        assert environment == {}
        assert listening.handed_over(environment) == []


def test_those_of_another_process_are_left_alone() -> None:
    assert listening.handed_over(meant_for_us(pid=1)) == []
    assert listening.handed_over({"LISTEN_FDS": "many", "LISTEN_PID": str(os.getpid())}) == []


def test_what_does_not_listen_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(BadInput, match=r"cannot use descriptor \d+: .*[Ss]ocket"):
        listening.handed_over(meant_for_us(), first=file)
    os.close(file)
    with socket.socket() as silent, pytest.raises(BadInput, match="no stream that listens"):
        listening.handed_over(meant_for_us(), first=os.dup(silent.fileno()))
