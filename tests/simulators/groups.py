"""Control groups of a test's own, of whichever version is here: limited, and counted."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path("/sys/fs/cgroup")
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Group:
    """One control group; `version` of its hierarchy."""

    folder: Path
    version: int

    def limit(self, mib: float) -> None:
        """Its processes may not take more memory."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.folder / name).write_text(str(int(mib * 2**20)))

    def used_mib(self) -> float:
        """Memory that is charged to it."""
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int((self.folder / name).read_text()) / 2**20

    def cpu_s(self) -> float:
        """CPU time of all that ever ran in it."""
        if self.version == 1:
            return int((self.folder / "cpuacct.usage").read_text()) / 1e9
        text = (self.folder / "cpu.stat").read_text()
        return int(text.split("usage_usec ")[1].split()[0]) / 1e6

    def take(self, pid: int) -> None:
        """Have a process, and all that it starts from now on, in it."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in (self.folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def remove(self) -> None:
        """End what is left in it, and take it away."""
        while left := self._processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=10)
        self.folder.rmdir()


def _make(controller: str) -> Group | None:
    name = f"trimtab-test-{os.getpid()}-{next(_NUMBERS)}"
    for made in (Group(ROOT / controller / name, 1), Group(ROOT / name, 2)):
        with contextlib.suppress(OSError):
            made.folder.mkdir()
            return made
    return None


@contextlib.contextmanager
def control_group(controller: str) -> Iterator[Group | None]:
    """A group under `controller` (as version 1 calls it); None where none may be made."""
    made = _make(controller)
    try:
        yield made
    finally:
        if made is not None:
            made.remove()
