"""The demo's child processes: started, watched, ended with everything below them."""

import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.errors import Unavailable
from deploy.demo import broker, device
from deploy.demo.services import Service, last_words, wait_until_listening

# A child that starts one of its own, tells its id and waits.
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def module(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return [name]


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def test_the_broker_listens_on_a_port_of_its_own_and_is_gone_after_stop(tmp_path: Path) -> None:
    started = broker.start(tmp_path)
    try:
        with socket.create_connection(("127.0.0.1", started.port), timeout=5):
            pass
        started.service.check()
    finally:
        started.service.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", started.port), timeout=5)
    started.service.stop()  # fine to call twice


def test_a_child_is_ended_with_its_own_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = module(tmp_path, "family", FAMILY, monkeypatch)
    service = Service("family", arguments, log=tmp_path / "log")
    service.start()
    eventually(lambda: (tmp_path / "log").read_text().strip().isdecimal())
    grandchild = int((tmp_path / "log").read_text())
    assert psutil.pid_exists(grandchild)
    service.stop()
    eventually(
        lambda: (
            not psutil.pid_exists(grandchild)
            or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
        )
    )


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import sys; print('no such key'); sys.exit(78)", "exit code 78"),
        ("import os; print('no such key', flush=True); os.abort()", "killed by SIGABRT"),
    ],
)
def test_says_how_a_child_ended_its_last_words_and_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, how: str
) -> None:
    arguments = module(tmp_path, "short", code, monkeypatch)
    service = Service("agent", arguments, log=tmp_path / "agent.log")
    service.start()
    with pytest.raises(Unavailable, match=rf"the agent ended \({how}\): no such key .*agent\.log"):
        wait_until_listening(service, 1)
    service.stop()


def test_a_child_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.demo.services.STOP_S", 0.2)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('ready', flush=True); time.sleep(600)"
    )
    service = Service("stubborn", module(tmp_path, "stubborn", code, monkeypatch),
                      log=tmp_path / "log")  # fmt: skip
    service.start()
    eventually(lambda: (tmp_path / "log").read_text().strip() == "ready")
    pid = service.pid
    service.stop()
    assert not psutil.pid_exists(pid)


def test_the_agents_configuration_is_its_own_and_nothing_leaks_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_STATE_DIR", "/var/lib/trimtab")
    monkeypatch.setenv("TRIMTAB_BROKER__PASSWORD", "secret")
    folders = device.Folders(tmp_path / 'odd "name" \\ ü')
    folders.root.mkdir()
    folders.make()
    text = device.configuration(folders, broker_port=1234)
    config = folders.root / "trimtab.toml"
    config.write_text(text)
    parsed = tomllib.loads(text)
    assert parsed["state_dir"] == str(folders.state)
    assert parsed["broker"] == {"host": "127.0.0.1", "port": 1234}
    assert not any(name.startswith("TRIMTAB_") for name in device.environment())
    code = (
        "from agent import config; s = config.load(); "
        "print(s.device_id, s.http_port, s.broker.port, s.broker.password)"
    )
    environment = device.environment() | {"TRIMTAB_CONFIG": str(config)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["demo", "0", "1234", "None"]


def test_last_words_of_a_log_that_is_empty_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n\n")
    assert last_words(tmp_path / "log") == "it said nothing"
    assert last_words(tmp_path / "none") == "it has no log"
