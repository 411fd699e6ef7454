"""Arrays inside an .npz, read by position: bounded, never unpickled, never all at once."""

import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from compression.errors import BadInputs

MOST_ARRAYS = 200_000
_BLOCK = 1024 * 1024
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""PKWARE APPNOTE 4.3.7: signature, ..., length of the name, length of the extra field."""


@dataclass(frozen=True)
class Stored:
    """One C-ordered array at an offset of an open file."""

    file: IO[bytes]
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self) -> NDArray[Any]:
        """Read the whole array."""
        return self._at(self.offset, self.shape)

    def read_rows(self, start: int, count: int) -> NDArray[Any]:
        """Read `count` rows of the leading axis."""
        row = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        return self._at(self.offset + start * row, (count, *self.shape[1:]))

    def _at(self, offset: int, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.empty(shape, self.dtype)
        view = memoryview(array.data).cast("B") if array.size else memoryview(b"")
        done = 0
        while done < len(view):
            got = os.preadv(self.file.fileno(), [view[done:]], offset + done)
            if got == 0:
                raise BadInputs("cannot read an array: its file became shorter while in use")
            done += got
        return array


class Archive:
    """The arrays of one .npz by name; the whole file is read through once, to check it."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self.arrays: dict[str, Stored] = {}
        self._spill: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        try:
            self._file = path.open("rb")
        except OSError as error:
            self._spill.close()
            raise self._bad(error.strerror or str(error)) from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files. Fine to call twice."""
        self._file.close()
        self._spill.close()

    def _open(self) -> None:
        try:
            with zipfile.ZipFile(self._file) as archive:
                entries = archive.infolist()
                self._bound(entries)
                for entry in entries:
                    self.arrays[entry.filename.removesuffix(".npy")] = self._add(archive, entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
            raise self._bad(f"not an .npz, or damaged ({error})") from error
        except (NotImplementedError, RuntimeError) as error:  # what zipfile raises for just these
            raise self._bad(f"compressed or encrypted in an unknown way ({error})") from error
        except OSError as error:
            raise self._bad(str(error)) from error

    def _bound(self, entries: list[zipfile.ZipInfo]) -> None:
        total = sum(entry.file_size for entry in entries)
        if total > self._most_bytes:
            raise self._bad(
                f"{total / 2**20:.1f} MiB unpacked, over the bound of "
                f"{self._most_bytes / 2**20:.1f} MiB"
            )
        if len(entries) > MOST_ARRAYS:
            raise self._bad(f"{len(entries)} arrays, over the bound of {MOST_ARRAYS}")
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise self._bad("two arrays have the same name")

    def _add(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Stored:
        with archive.open(entry) as member:
            shape, fortran, dtype = self._header(entry.filename, member)
            header_bytes = member.tell()
            stored = entry.compress_type == zipfile.ZIP_STORED and not fortran
            file, offset = (
                (self._file, self._data_offset(entry) + header_bytes)
                if stored
                else (self._spill, self._spill.seek(0, os.SEEK_END))
            )
            if fortran:
                flat = np.frombuffer(member.read(), dtype)
                if flat.size == int(np.prod(shape, dtype=np.int64)):
                    self._spill.write(flat.reshape(shape, order="F").tobytes("C"))
            else:
                # Read to the end in any case: that is what checks the CRC.
                while block := member.read(_BLOCK):
                    if not stored:
                        self._spill.write(block)
            held = entry.file_size - header_bytes
        self._spill.flush()
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if held != wanted:
            raise self._bad(f"array {entry.filename!r} holds {held} bytes instead of {wanted}")
        return Stored(file, offset, shape, dtype)

    def _header(self, name: str, member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = npy.read_magic(member)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(member)
        except (ValueError, SyntaxError, TypeError) as error:
            raise self._bad(f"{name!r} is not an array ({str(error).splitlines()[0]})") from error
        if dtype.hasobject or dtype.kind not in "biufcUS" or min(shape, default=0) < 0:
            raise self._bad(f"array {name!r} of dtype {dtype} is not plain numbers")
        return shape, fortran, dtype

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        header = os.pread(self._file.fileno(), _LOCAL_HEADER.size, entry.header_offset)
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        return int(entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)

    def _bad(self, what: str) -> BadInputs:
        return BadInputs(f"cannot read inputs {self._path.name}: {what}")
