"""One file being filled in place: chunks at their offsets, and a journal of those that came.

NAME.partial   the file as it will be, allocated whole, with holes in what it says
NAME.journal   32 bytes that say which file this is, then one record for each chunk

Every byte of the model is written once. A record carries the digest of the bytes that it stands
for, so after a power cut it does not matter which of the two files reached the disk first: what
does not fit its digest is missing.
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from agent.errors import Corrupt
from agent.protocol import chunking
from agent.protocol.manifest import FileRef
from agent.store import disk
from compression import durable

_RECORD = struct.Struct(">I16s")
"""Position of the chunk, and the first 16 bytes of the sha256 of its plain bytes."""


class Damaged(Corrupt):
    """A chunk whose bytes hash to another name: to be asked for again."""


class Partial:
    """A file on its way to `target`. `put` on the event loop; the rest may run in a thread."""

    def __init__(self, ref: FileRef, names: list[str], target: Path) -> None:
        """Open it, or begin it; `names` are its chunks in order.

        Raises:
            Unavailable: the disk is full, failing or read-only.
        """
        self.ref, self.target, self.names = ref, target, names
        self._path, self._journal_path = beside(target, "partial"), beside(target, "journal")
        self._positions: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            self._positions.setdefault(name, []).append(position)
        self._digests: dict[int, bytes] = {}
        """Of what is here, by position."""
        self._unsettled: list[int] = []
        self._whole, self._hashed = hashlib.sha256(), 0
        self._file = self._journal = -1
        try:
            with disk.trouble(f"begin {target.name}"):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                appending = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._journal = os.open(self._journal_path, appending, 0o644)
                self._resume()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files; what is settled stays for the next time."""
        for handle in (self._file, self._journal):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._file = self._journal = -1

    def missing(self) -> list[str]:
        """The chunks that are not here: in order, each once."""
        return [
            name
            for name, positions in self._positions.items()
            if any(position not in self._digests for position in positions)
        ]

    @property
    def here(self) -> int:
        """How many chunks are here, of `len(names)`."""
        return len(self._digests)

    def put_sent(self, name: str, sent: bytes) -> None:
        """Write a chunk as it came, wherever it belongs.

        Raises:
            Damaged: its bytes hash to another name.
            Corrupt: they do not decode to what belongs there.
            Unavailable: the disk is full or failing.
        """
        found = chunking.sha256(sent)
        if found != name or name not in self._positions:
            raise Damaged(
                f"cannot accept chunk {name[:12]}: its {len(sent)} bytes hash to {found[:12]}"
            )
        length = self._length(self._positions[name][0])
        plain = chunking.decode(sent, self.ref.encoding, plain_bytes=length)
        digest = bytes.fromhex(name) if plain is sent else None
        self.put_plain(name, plain, digest=digest)

    def put_plain(self, name: str, plain: bytes, *, digest: bytes | None = None) -> None:
        """Write the plain bytes of a chunk, wherever it belongs; `digest` is their sha256.

        Raises:
            Corrupt: they are not as long as what belongs there.
            Unavailable: the disk is full or failing.
        """
        digest = (digest or hashlib.sha256(plain).digest())[:16]
        for position in self._positions[name]:
            if len(plain) != self._length(position):
                raise Corrupt(
                    f"cannot use chunk {name[:12]}: {len(plain)} bytes where "
                    f"{self._length(position)} belong"
                )
            with disk.trouble(f"write chunk {name[:12]} of {self.target.name}"):
                _write_all(self._file, plain, at=position * self.ref.chunk_bytes)
            self._digests[position] = digest
            self._unsettled.append(position)

    def settle(self) -> None:
        """Flush what was put, and note it in the journal.

        Raises:
            Unavailable: the disk is full or failing; what was put counts as missing.
        """
        pending, self._unsettled = self._unsettled, []
        try:
            with disk.trouble(f"settle {len(pending)} chunks of {self.target.name}"):
                os.fdatasync(self._file)
                records = [_RECORD.pack(position, self._digests[position]) for position in pending]
                _append_all(self._journal, b"".join(records))
                os.fdatasync(self._journal)
                self._hash_on()
        except BaseException:
            self.forget(self.names[position] for position in pending)
            raise

    def doubtful(self) -> list[str]:
        """The chunks whose bytes on disk are not what was put; they are missing from now on."""
        with disk.trouble(f"read {self._path}"):
            lost = [p for p in sorted(self._digests) if self._digest_on_disk(p) != self._digests[p]]
        self.forget(self.names[position] for position in lost)
        return [self.names[position] for position in lost]

    def forget(self, names: Iterable[str]) -> None:
        """Count these chunks as missing, and begin the sum of the whole anew."""
        for name in names:
            for position in self._positions[name]:
                self._digests.pop(position, None)
        self._whole, self._hashed = hashlib.sha256(), 0

    def finish(self) -> str | None:
        """Give the file its name where it hashes to what the manifest says; return None then.

        Else return the hash that it has, and leave everything as it is.

        Raises:
            Unavailable: the disk is failing.
        """
        with disk.trouble(f"write {self.target}"):
            self._hash_on()
            found = self._whole.hexdigest()
            if self._hashed != self.ref.size_bytes or found != self.ref.sha256:
                return found
            os.fsync(self._file)
            self._path.replace(self.target)
            durable.sync_folder(self.target.parent)
            self._journal_path.unlink(missing_ok=True)
        return None

    def discard(self) -> None:
        """Remove what lies beside the target."""
        for path in (self._path, self._journal_path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _length(self, position: int) -> int:
        return chunking.chunk_length(
            position, size_bytes=self.ref.size_bytes, chunk_bytes=self.ref.chunk_bytes
        )

    def _resume(self) -> None:
        """Believe of the journal what the file bears out; begin anew where it is another's."""
        identity = hashlib.sha256(self.ref.to_json()).digest()
        journal = os.pread(self._journal, os.fstat(self._journal).st_size, 0)
        if journal[:32] != identity or os.fstat(self._file).st_size != self.ref.size_bytes:
            os.ftruncate(self._journal, 0)
            os.ftruncate(self._file, 0)
            _allocate(self._file, self.ref.size_bytes)
            _append_all(self._journal, identity)
            return
        records = journal[32 : len(journal) - (len(journal) - 32) % _RECORD.size]
        for position, digest in _RECORD.iter_unpack(records):
            if position < len(self.names) and self._digest_on_disk(position) == digest:
                self._digests[position] = digest
        # A torn record would shift those that follow it.
        os.ftruncate(self._journal, 32 + len(records))

    def _digest_on_disk(self, position: int) -> bytes:
        plain = os.pread(self._file, self._length(position), position * self.ref.chunk_bytes)
        return hashlib.sha256(plain).digest()[:16]

    def _hash_on(self) -> None:
        """Add to the sum of the whole what has become contiguous since the last time."""
        position = self._hashed // self.ref.chunk_bytes
        while position in self._digests:
            plain = os.pread(self._file, self._length(position), self._hashed)
            self._whole.update(plain)
            self._hashed += len(plain)
            position += 1


def beside(target: Path, suffix: str) -> Path:
    """A file that belongs to `target`, beside it."""
    return target.with_name(f"{target.name}.{suffix}")


def is_whole(ref: FileRef, path: Path) -> bool:
    """Whether `path` is exactly what `ref` names; it is read from end to end."""
    try:
        if path.stat().st_size != ref.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    except OSError:
        return False


def _allocate(file: int, size_bytes: int) -> None:
    """Take the room now, so that a disk that fills up meanwhile ends nothing halfway."""
    try:
        os.posix_fallocate(file, 0, size_bytes)
    except OSError as error:
        if error.errno not in disk.NOT_SUPPORTED:
            raise
        os.ftruncate(file, size_bytes)


def _write_all(file: int, content: bytes, *, at: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _append_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
