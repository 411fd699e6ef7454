"""What worker and trial share as child processes: a clean stdout, lines in, the parent's death."""

import os
import queue
import sys
import threading
from typing import TextIO


def clean_stdout() -> TextIO:
    """Keep the real stdout for JSON lines; whatever libraries print goes to stderr."""
    lines = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return lines


def read_line(fd: int = 0) -> bytes:
    """Read one line without buffering ahead, so that others may read on; empty at the end."""
    parts: list[bytes] = []
    while byte := os.read(fd, 1):
        if byte == b"\n":
            break
        parts.append(byte)
    return b"".join(parts)


class Parent:
    """The lines on stdin; this process ends when stdin does, unless its work is finished.

    The parent holds stdin open as long as it wants an answer: end of file means that it is gone.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._finished = threading.Event()
        threading.Thread(target=self._read, name="parent watcher", daemon=True).start()

    def line(self) -> str:
        """Wait for the next line."""
        return self._lines.get()

    def finished(self) -> None:
        """Say that the answer is ready: from now on the end of stdin is only good manners."""
        self._finished.set()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        if not self._finished.is_set():
            os._exit(1)
