"""Regions of system shared memory that clients made and registered: tensors cross without a copy.

Specification: Triton's extension_shared_memory.md; keys are shm_overview(7)'s. A client that
shortens its object while the server reads it can bring the server down: so clients are allowed
this only where they are trusted.
"""

import itertools
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import BadInput
from agent.protocol.oip import Shared
from agent.serving.faults import Busy, NotFound

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps POSIX shared memory (shm_overview(7))
MOST_REGIONS = 256
MOST_BYTES = 2**30
"""Of one region: making sure of its pages may charge them to this process."""


@dataclass(frozen=True, eq=False)
class Region:
    """A registered region; `serial` tells it from others that had its name."""

    name: str
    key: str
    offset: int
    byte_size: int
    serial: int
    view: memoryview
    file: int

    def __del__(self) -> None:
        os.close(self.file)

    def whole(self) -> bool:
        """Whether its object is still as long as it was: beyond its end reading is a bus error."""
        # As os.fstat, in a quarter of the time.
        return os.lseek(self.file, 0, os.SEEK_END) >= self.offset + self.byte_size

    def described(self) -> dict[str, Any]:
        """As the protocol tells it."""
        return {
            "name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size
        }  # fmt: skip


class Regions:
    """What is registered, by name. A region stays mapped while a run still uses it."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}
        self._serials = itertools.count(1)

    def register(self, name: str, *, key: str, offset: int, byte_size: int) -> None:
        """Map `byte_size` bytes from `offset` of the object that a client made under `key`.

        Raises:
            BadInput: the name is taken, there is no such object, it is shorter, or the device has
                no memory for all of it.
            Busy: too many regions are registered.
        """
        if name in self._regions:
            raise BadInput(f"cannot register '{name[:80]}': a region of that name is registered")
        if len(self._regions) >= MOST_REGIONS:
            raise Busy(
                f"cannot register '{name[:80]}': {MOST_REGIONS} regions are", retry_after_s=1.0
            )
        file = _open(name, key)
        try:
            size = os.fstat(file).st_size
            if byte_size < 1 or offset < 0 or offset + byte_size > size:
                raise BadInput(
                    f"cannot register '{name[:80]}': {byte_size} bytes from {offset} of {key!r}, "
                    f"which has {size}"
                )
            if byte_size > MOST_BYTES:
                raise BadInput(
                    f"cannot register '{name[:80]}': {byte_size} bytes, at most {MOST_BYTES}"
                )
            # Pages that exist only on paper would be a bus error when memory ends.
            os.posix_fallocate(file, offset, byte_size)
            whole = memoryview(mmap.mmap(file, offset + byte_size))
        except OSError as error:
            os.close(file)
            raise BadInput(f"cannot register '{name[:80]}': {error.strerror}") from error
        except BadInput:
            os.close(file)
            raise
        serial = next(self._serials)
        self._regions[name] = Region(name, key, offset, byte_size, serial, whole[offset:], file)

    def unregister(self, name: str | None) -> list[Region]:
        """Forget one region, or all; which they were. That it is not there is no error."""
        names = list(self._regions) if name is None else [name]
        return [self._regions.pop(each) for each in names if each in self._regions]

    def status(self, name: str | None) -> list[dict[str, Any]]:
        """What is registered: one region, or all.

        Raises:
            NotFound: no region of that name.
        """
        if name is None:
            return [region.described() for region in self._regions.values()]
        return [self.find(name).described()]

    def find(self, name: str) -> Region:
        """The region of a name.

        Raises:
            NotFound: no region of that name.
        """
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"cannot find shared memory region '{name[:80]}': it is not registered")
        return region

    def view(self, place: Shared) -> tuple[Region, memoryview]:
        """The bytes of a tensor, and the region that they lie in.

        Raises:
            NotFound: no region of that name.
            BadInput: it ends before the tensor does, or was shortened meanwhile.
        """
        region = self.find(place.region)
        end = place.offset + place.size
        if end > region.byte_size:
            raise BadInput(
                f"cannot use {place.size} bytes from {place.offset} of region '{region.name}': "
                f"it has {region.byte_size}"
            )
        if os.fstat(region.file).st_size < region.offset + end:
            raise BadInput(f"cannot use region '{region.name}': its object was made shorter")
        return region, region.view[place.offset : end]


def _open(name: str, key: str) -> int:
    """Open the object of a key as shm_open(3) would: a name without folders, no link, a file."""
    bare = key.removeprefix("/")
    if not bare or "/" in bare or "\0" in bare or bare in {".", ".."} or len(bare) > 250:
        raise BadInput(f"cannot register '{name[:80]}': {key[:80]!r} is no key of shared memory")
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(FOLDER / bare, flags)
    except OSError as error:
        raise BadInput(
            f"cannot register '{name[:80]}': key {key[:80]!r}: {error.strerror}"
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BadInput(f"cannot register '{name[:80]}': key {key[:80]!r} is no shared memory")
    return file
