"""What systemd would receive on its socket, on a path and in the abstract namespace."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.device.sd_notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        if request.param == "path":
            line.bind(str(tmp_path / "notify"))
            yield line, str(tmp_path / "notify")
        else:
            line.bind("")  # Linux picks a free abstract address, see unix(7)
            name = line.getsockname()
            yield line, "@" + name[1:].decode()


def test_every_message_arrives_as_the_manual_writes_it(manager: tuple[socket.socket, str]) -> None:
    line, address = manager
    line.settimeout(5)
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("serving 2 models")
    notifier.status("two\nlines  become\rone")
    notifier.watchdog()
    notifier.extend_timeout(1.5)
    notifier.stopping()
    assert [line.recv(4096).decode() for _ in range(5)] == [
        "READY=1\nSTATUS=serving 2 models",
        "STATUS=two lines become one",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STOPPING=1",
    ]


def test_a_status_cannot_smuggle_another_assignment(manager: tuple[socket.socket, str]) -> None:
    line, address = manager
    line.settimeout(5)
    Notifier({"NOTIFY_SOCKET": address}).status("fine\nMAINPID=1")
    assert line.recv(4096) == b"STATUS=fine MAINPID=1"


@pytest.mark.parametrize(
    "address", ["", "relative", "/nobody/listens/here", "@nobody-listens-here"]
)
def test_without_a_listener_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("x")
    assert notifier.present is address.startswith(("/", "@"))


def test_a_full_socket_does_not_hold_the_caller(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        filler = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        filler.setblocking(False)
        with filler, contextlib.suppress(BlockingIOError):
            for _ in range(100_000):
                filler.sendto(b"x", str(tmp_path / "notify"))
            pytest.fail("the socket was never full")
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).watchdog()


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit_by_the_process_it_watches(
    environment: dict[str, str], interval: float | None
) -> None:
    assert Notifier(environment, pid=77).watchdog_interval_s == interval
