"""The child processes of the demo: started with a log of their own, ended as a group."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.errors import Unavailable

STOP_S = 15.0


class Service:
    """One child in a session of its own: Ctrl-C reaches us, and we end it in order."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare `python -P -m arguments`; both its outputs go to `log`."""
        self.name = name
        self.log = log
        self._command = [sys.executable, "-P", "-m", *arguments]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 where it was not started."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it.

        Raises:
            Unavailable: the machine has no process for it.
        """
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    cwd=self.log.parent,
                    start_new_session=True,
                )
        except OSError as error:
            raise Unavailable(f"cannot start the {self.name}: {error}") from error

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            Unavailable: it has ended; how, its last words and where its log is.
        """
        if self._process is None or self._process.poll() is None:
            return
        how = self._process.returncode
        ended = f"exit code {how}" if how >= 0 else f"killed by {signal.Signals(-how).name}"
        raise Unavailable(
            f"cannot go on: the {self.name} ended ({ended}): {last_words(self.log)} "
            f"(its log: {self.log})"
        )

    def stop(self) -> None:
        """Ask it to end, then end its whole group. Fine to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        # Its own children too, should it have left any behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(log: Path) -> str:
    """The last line of a log that says something, at most 200 characters."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "it has no log"
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][-200:] if said else "it said nothing"


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(service: Service, port: int, *, seconds: float = 15.0) -> None:
    """Wait until something accepts connections on 127.0.0.1:`port`.

    Raises:
        Unavailable: the service ended, or nothing listens when the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        service.check()
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=0.5),
        ):
            return
        time.sleep(0.02)
    raise Unavailable(
        f"cannot reach the {service.name} at 127.0.0.1:{port} after {seconds:.0f} s "
        f"(its log: {service.log})"
    )
