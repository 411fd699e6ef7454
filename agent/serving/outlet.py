"""A way to the client for a thread that has its answer: past the loop, which is told afterwards.

To wake the loop, and to find its code in no cache any more, costs 150 us behind a run of
milliseconds (docs/adr/0018). It is used only while a connection waits for nothing but this answer.
"""

import os
import socket
import threading


class Outlet:
    """A second descriptor of a connection's socket, so that it is never anybody else's."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setblocking(False)
        self._lock = threading.Lock()
        self._closed = False

    def say(self, answer: bytes) -> int:
        """Send what can be sent at once; how many bytes that was. From any thread."""
        with self._lock:
            try:
                return 0 if self._closed else self._socket.send(answer)
            except OSError:
                return 0

    def close(self) -> None:
        """Say nothing any more: the connection has ended."""
        with self._lock:
            self._closed = True
            self._socket.close()
