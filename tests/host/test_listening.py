"""The sockets that the agent owns: taken ports, stale files, paths that are too long."""

import socket
from pathlib import Path

import pytest

from agent.errors import BadInput, Unavailable
from agent.host import ground, listening


def test_a_free_port_is_chosen_and_told() -> None:
    with listening.tcp("127.0.0.1", 0) as listener:
        assert listener.getsockname()[1] > 0
        with pytest.raises(Unavailable, match=r"^cannot listen on 127\.0\.0\.1:\d+: Address"):
            listening.tcp("127.0.0.1", listener.getsockname()[1])


def test_the_other_family_works_too() -> None:
    with listening.tcp("::1", 0) as listener:
        socket.create_connection(("::1", listener.getsockname()[1])).close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_unavailable(host: str) -> None:
    with pytest.raises(Unavailable, match=f"^cannot listen on {host}:0: "):
        listening.tcp(host, 0)


def test_a_socket_file_left_by_the_dead_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listening.unix(path).close()
    assert path.is_socket()
    with listening.unix(path), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        with pytest.raises(Unavailable, match="somebody listens there already"):
            listening.unix(path)


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(BadInput, match="it exists and is no socket"):
        listening.unix(path)
    assert path.read_text() == "precious"


def test_paths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="longer than 100 bytes"):
        listening.unix(tmp_path / ("x" * 100))
    with pytest.raises(Unavailable, match="No such file"):
        listening.unix(tmp_path / "none" / "s")


def test_nothing_stays_open_or_on_disk_when_one_of_the_sockets_fails(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with listening.tcp("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    path.write_text("in the way")
    with pytest.raises(BadInput):
        ground.prepare(host="127.0.0.1", port=port, unix_path=path)
    path.unlink()
    prepared = ground.prepare(host="127.0.0.1", port=port, unix_path=path)
    private = prepared.private_path
    assert len(str(private)) <= listening.PATH_BYTES
    assert private.parent.stat().st_mode & 0o777 == 0o700
    prepared.close()
    prepared.close()
    assert not path.exists()
    assert not private.parent.exists()
