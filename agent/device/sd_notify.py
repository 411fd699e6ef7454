"""Tells systemd how the service fares: READY, STATUS, WATCHDOG, STOPPING; see sd_notify(3).

Outside systemd there is no socket, and every call does nothing. A message that cannot be sent
is let go, as the manual asks: a service must not fail because nobody listens.
"""

import contextlib
import os
import socket
from collections.abc import Mapping

# systemd empties its socket quickly; a stuck one must not stop the event loop for long.
_SEND_TIMEOUT_S = 0.5


class Notifier:
    """One service's line to its manager, from the environment that systemd sets.

    An address that starts with `@` is in the abstract namespace.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, *, pid: int | None = None):
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self.watchdog_interval_s = _watchdog_interval_s(environment, pid or os.getpid())
        """How often to call `watchdog`: half the limit; None: nobody watches."""

    @property
    def present(self) -> bool:
        """Whether a manager listens."""
        return self._address.startswith(("/", "\0"))

    def ready(self, status: str = "") -> None:
        """Started: units that wait for this one go on."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def watchdog(self) -> None:
        """Still alive. Call it every `watchdog_interval_s`."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str = "") -> None:
        """On the way out; from systemd 259 on this is final."""
        self._send("STOPPING=1", *_status(status))

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping takes longer: ask for `seconds` more from now on."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, *assignments: str) -> None:
        if not self.present:
            return
        with contextlib.suppress(OSError), _datagram_socket() as line:
            line.settimeout(_SEND_TIMEOUT_S)
            line.sendto("\n".join(assignments).encode(), self._address)


def _datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _status(text: str) -> tuple[str, ...]:
    # A line break would begin another assignment.
    return (f"STATUS={' '.join(text.split())}",) if text else ()


def _watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """Half of WATCHDOG_USEC, if it is meant for this process: see sd_watchdog_enabled(3)."""
    limit, meant_for = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not (limit.isascii() and limit.isdigit()) or int(limit) == 0:
        return None
    if meant_for and meant_for != str(pid):
        return None
    return int(limit) / 2e6
