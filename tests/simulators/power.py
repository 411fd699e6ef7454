"""Power cuts: a process that is killed at the n-th thing it does to its disk, and what is lost.

Every change to the file system is a moment: opening a file to write, writing, syncing, renaming,
unlinking, making a folder; and so is each save of a record, before and after. At the moment asked
for, a write stops in its middle, what was not synced is lost by half, and the process kills itself
with SIGKILL, as a cut of the power would.
"""

import asyncio
import contextlib
import io
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from agent.control.record import Record, Records


class Moments:
    """Counts moments; `cut_at` of 0 never cuts. Each is noted in `log` where that is given."""

    def __init__(self, folder: Path, *, cut_at: int = 0, log: Path | None = None) -> None:
        self._folder, self._cut_at = str(folder), cut_at
        self._log = log.open("a") if log else None
        self._count = 0
        self._paths: dict[int, str] = {}
        self._dirty: set[str] = set()
        self.state = "idle"

    def reached(self, what: str) -> bool:
        """Note a moment; whether the power is to go now."""
        self._count += 1
        if self._log:
            self._log.write(f"{self.state}\t{what}\n")
            self._log.flush()
        return self._count == self._cut_at

    def at(self, what: str) -> None:
        if self.reached(what):
            self.cut()

    def cut(self) -> None:
        """Lose what was not synced, and die."""
        for path in self._dirty:
            with contextlib.suppress(OSError):
                os.truncate(path, Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Have everything that happens below the folder pass here."""
        real_open, real_fsync, real_fdopen, real_replace = os.open, os.fsync, os.fdopen, os.replace

        def open_(path: Any, flags: int, *rest: Any, **named: Any) -> int:
            ours = flags & (os.O_WRONLY | os.O_RDWR) and self._ours(path)
            if ours:
                self.at(f"open {Path(path).name}")
            descriptor = real_open(path, flags, *rest, **named)
            if ours:
                self._paths[descriptor] = str(path)
                self._dirty.add(str(path))
            return descriptor

        def fsync(descriptor: int) -> None:
            path = self._paths.get(descriptor)
            if path:
                self.at(f"sync {Path(path).name}")
            real_fsync(descriptor)
            if path:
                self._dirty.discard(path)

        def fdopen(descriptor: int, *rest: Any, **named: Any) -> Any:
            file = real_fdopen(descriptor, *rest, **named)
            return self._torn(file, descriptor) if descriptor in self._paths else file

        def replace(source: Any, target: Any, **named: Any) -> None:
            if self._ours(source):
                self.at(f"rename to {Path(target).name}")
            real_replace(source, target, **named)
            if str(source) in self._dirty:
                self._dirty.discard(str(source))
                self._dirty.add(str(target))

        def plainly(name: str) -> Callable[..., None]:
            real = getattr(os, name)

            def act(path: Any, *rest: Any, **named: Any) -> None:
                if self._ours(path):
                    self.at(f"{name} {Path(path).name}")
                real(path, *rest, **named)

            return act

        with contextlib.ExitStack() as stack:
            acts = {"open": open_, "fsync": fsync, "fdopen": fdopen, "replace": replace}
            acts |= {name: plainly(name) for name in ("unlink", "mkdir", "rmdir")}
            for name, act in acts.items():
                stack.enter_context(mock.patch.object(os, name, act))
            yield

    def _ours(self, path: Any) -> bool:
        return isinstance(path, str | Path) and str(path).startswith(self._folder)

    def _torn(self, file: io.BufferedWriter, descriptor: int) -> Any:
        real = file.write

        def write(data: bytes) -> int:
            if self.reached(f"write {Path(self._paths[descriptor]).name}"):
                real(data[: len(data) // 2])
                file.flush()
                self.cut()
            return real(data)

        file.write = write  # type: ignore[method-assign]  # the half-written file is the point
        return file


class CutRecords(Records):
    """Records that tell of each save, before and after."""

    def __init__(self, folder: Path, moments: Moments) -> None:
        super().__init__(folder)
        self._moments = moments

    def save(self, record: Record) -> None:
        self._moments.at("done")
        super().save(record)
        self._moments.state = str(record.deployment.state) if record.deployment else "idle"
        self._moments.at("saved")


def in_a_process_of_its_own(work: Callable[[], Awaitable[None]]) -> int:
    """Run `work` in a forked process; how it ended: 0, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.run(work())  # type: ignore[arg-type]  # a coroutine
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
