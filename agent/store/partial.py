"""One file being filled in place: chunks at their offsets, and a journal of those that came.

NAME.partial   the file as it will be, allocated whole, with holes in what it says
NAME.journal   which chunks are in it (agent.store.journal)

Every byte of the model is written once. After a power cut it does not matter which of the two
files reached the disk first: what does not fit its digest in the journal is missing.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from agent.errors import Corrupt
from agent.protocol import chunking
from agent.protocol.manifest import FileRef
from agent.store import disk
from agent.store.journal import DIGEST_BYTES, Journal
from compression import durable


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
        self._path, self._journal_path = (
            disk.beside(target, "partial"),
            disk.beside(target, "journal"),
        )
        self._positions: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            self._positions.setdefault(name, []).append(position)
        self._digests: dict[int, bytes] = {}
        """Of what is here, by position."""
        self._unsettled: list[int] = []
        self._whole, self._hashed = hashlib.sha256(), 0
        self._file, self._journal = -1, None
        try:
            with disk.trouble(f"begin {target.name}"):
                target.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self._journal = Journal(self._journal_path)
                self._resume(self._journal)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files; what is settled stays for the next time."""
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1
        if self._journal is not None:
            self._journal.close()

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
        digest = (digest or hashlib.sha256(plain).digest())[:DIGEST_BYTES]
        for position in self._positions[name]:
            if len(plain) != self._length(position):
                raise Corrupt(
                    f"cannot use chunk {name[:12]}: {len(plain)} bytes where "
                    f"{self._length(position)} belong"
                )
            with disk.trouble(f"write chunk {name[:12]} of {self.target.name}"):
                disk.write_all(self._file, plain, at=position * self.ref.chunk_bytes)
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
                assert self._journal is not None
                self._journal.note((position, self._digests[position]) for position in pending)
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

    def _resume(self, journal: Journal) -> None:
        """Believe of the journal what the file bears out; begin anew where it is another's."""
        identity = hashlib.sha256(self.ref.to_json()).digest()
        noted = journal.resumed(identity)
        if noted is None or os.fstat(self._file).st_size != self.ref.size_bytes:
            journal.empty()
            os.ftruncate(self._file, 0)
            disk.allocate(self._file, self.ref.size_bytes)
            journal.begin(identity)
            return
        for position, digest in noted:
            if position < len(self.names) and self._digest_on_disk(position) == digest:
                self._digests[position] = digest

    def _digest_on_disk(self, position: int) -> bytes:
        plain = os.pread(self._file, self._length(position), position * self.ref.chunk_bytes)
        return hashlib.sha256(plain).digest()[:DIGEST_BYTES]

    def _hash_on(self) -> None:
        """Add to the sum of the whole what has become contiguous since the last time."""
        position = self._hashed // self.ref.chunk_bytes
        while position in self._digests:
            plain = os.pread(self._file, self._length(position), self._hashed)
            self._whole.update(plain)
            self._hashed += len(plain)
            position += 1


def is_whole(ref: FileRef, path: Path) -> bool:
    """Whether `path` is exactly what `ref` names; it is read from end to end."""
    try:
        if path.stat().st_size != ref.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == ref.sha256
    except OSError:
        return False
