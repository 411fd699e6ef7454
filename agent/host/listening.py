"""Binds the sockets that the agent owns and its server accepts on, or takes them from systemd.

The agent owns them, so that callers wait in the backlog, and are not refused, while the server
restarts.
"""

import os
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path

from agent.errors import BadInput, Unavailable

BACKLOG = 1024
_FIRST_FD = 3
PATH_BYTES = 100
"""sun_path is 108 bytes on Linux, and some clients know less (unix(7))."""


def tcp(host: str, port: int) -> socket.socket:
    """Listen on a TCP port; 0 lets the system choose one.

    Raises:
        Unavailable: the port is taken, needs a privilege, or the host is not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        # A port whose last connections linger in TIME_WAIT is free for a restarted agent.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def unix(path: Path) -> socket.socket:
    """Listen on a Unix socket; one that a dead process left behind is replaced.

    Raises:
        BadInput: the path is too long, or something else than a socket lies there.
        Unavailable: somebody listens there, or the folder cannot be written.
    """
    if len(os.fsencode(path)) > PATH_BYTES:
        raise BadInput(f"cannot listen on {path}: longer than {PATH_BYTES} bytes")
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    return listener


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise BadInput(f"cannot listen on {path}: it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        try:
            knock.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Unavailable(f"cannot listen on {path}: somebody listens there already")


def handed_over(
    environment: MutableMapping[str, str] = os.environ, *, first: int = _FIRST_FD
) -> list[socket.socket]:
    """Take the listening sockets that systemd opened for this process, once (sd_listen_fds(3)).

    Raises:
        BadInput: one of them does not listen, or is no stream.
    """
    ours = environment.get("LISTEN_PID") == str(os.getpid())
    count = environment.pop("LISTEN_FDS", "0")
    environment.pop("LISTEN_PID", None)
    environment.pop("LISTEN_FDNAMES", None)
    if not ours or not count.isdecimal():
        return []
    taken = []
    for descriptor in range(first, first + int(count)):
        try:
            os.set_inheritable(descriptor, False)
            line = socket.socket(fileno=descriptor)
            listens = line.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise BadInput(f"cannot use descriptor {descriptor}: {error.strerror}") from error
        if not listens or line.type != socket.SOCK_STREAM:
            raise BadInput(f"cannot use descriptor {descriptor}: no stream that listens")
        taken.append(line)
    return taken
