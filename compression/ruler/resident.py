"""A process's own memory as the kernel counts it: resident, its peak, and its mapped pages."""

import ctypes
import os
from pathlib import Path

_PRESENT = 0x80
"""proc(5), pagemap: bit 63 of a page's 8 bytes, in the last of them (little endian)."""
_ENTRY_BYTES = 8


def kib(field: str) -> int:
    """Return a figure of /proc/self/status, such as VmRSS or VmHWM; 0 where it is not there."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def reset_peak() -> bool:
    """Let VmHWM begin again at VmRSS (proc(5), clear_refs); False where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def mapped_file_pages() -> list[int] | None:
    """Addresses of the file-backed pages that are mapped now; None where pagemap is hidden.

    A fork does not inherit these: its libraries' pages are mapped anew as it touches them, and
    would be counted as if what it does had added them.
    """
    size = os.sysconf("SC_PAGE_SIZE")
    pages: list[int] = []
    try:
        with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
            for start, end in _readable_files():
                at = start // size * _ENTRY_BYTES
                raw = os.pread(pagemap.fileno(), (end - start) // size * _ENTRY_BYTES, at)
                flags = raw[_ENTRY_BYTES - 1 :: _ENTRY_BYTES]
                pages += [start + n * size for n, flag in enumerate(flags) if flag & _PRESENT]
    except OSError:
        return None
    return pages


def touch(pages: list[int]) -> None:
    """Read one byte of each page, which maps it."""
    for address in pages:
        ctypes.string_at(address, 1)


def _readable_files() -> list[tuple[int, int]]:
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/") and fields[1].startswith("r"):
            start, end = (int(text, 16) for text in fields[0].split("-"))
            found.append((start, end))
    return found
