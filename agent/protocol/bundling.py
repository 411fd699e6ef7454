"""A model version in one file: a plain tar that holds what would lie on the broker (no I/O).

blob/SHA256     chunks and index blobs, exactly as they are sent; each is named by its own hash
manifest.json   the signed envelope, last: a copy that was cut short has none

Nothing in a header varies (ustar, time 0, owner 0), so the same version is the same file. POSIX
pax(1), "ustar Interchange Format".
"""

from agent.errors import Corrupt
from agent.protocol import chunking

BLOCK_BYTES = 512
MANIFEST = "manifest.json"
MOST_MANIFEST_BYTES = 128 * 1024
_BLOB = "blob/"
END = bytes(2 * BLOCK_BYTES)


def blob(sha256: str) -> str:
    """The entry of one chunk or index blob."""
    return _BLOB + sha256


def blob_name(entry: str) -> str | None:
    """The hash in the name of an entry; None where it is no blob."""
    name = entry.removeprefix(_BLOB)
    hexadecimal = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return name if entry.startswith(_BLOB) and hexadecimal else None


def header(entry: str, size_bytes: int) -> bytes:
    """The block before the bytes of an entry."""
    fields = [
        (entry, 100), ("0000644", 8), ("0000000", 8), ("0000000", 8), (f"{size_bytes:011o}", 12),
        (f"{0:011o}", 12), (" " * 8, 8), ("0", 1), ("", 100), ("ustar", 6), ("00", 2), ("", 32),
        ("", 32), ("0000000", 8), ("0000000", 8), ("", 155), ("", 12),
    ]  # fmt: skip
    block = b"".join(text.encode().ljust(width, b"\0") for text, width in fields)
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def padding(size_bytes: int) -> bytes:
    """What fills the last block of an entry."""
    return bytes(-size_bytes % BLOCK_BYTES)


def read_header(block: bytes) -> tuple[str, int] | None:
    """Name and size in bytes of the entry that a block begins; None at the end.

    Raises:
        Corrupt: it is no header of a bundle, or of something larger than a message.
    """
    if len(block) != BLOCK_BYTES:
        raise Corrupt("it ends in the middle")
    if not any(block):
        return None
    entry = block[:100].rstrip(b"\0").decode("ascii", "replace")
    try:
        size = int(block[124:135], 8)
    except ValueError:
        size = -1
    bounds = {MANIFEST: MOST_MANIFEST_BYTES}
    if size < 0 or block != header(entry, size):
        raise Corrupt("it is no bundle, or damaged")
    if entry != MANIFEST and blob_name(entry) is None:
        raise Corrupt(f"it holds {entry[:80]!r}, which does not belong there")
    if size > bounds.get(entry, chunking.CHUNK_BYTES):
        raise Corrupt(f"its entry {entry[:17]} has {size} bytes")
    return entry, size
