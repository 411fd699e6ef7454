"""Whether a client that sends no more has gone, or only finished sending and still listens.

Both look alike in TCP: a FIN. But where the client is on this device, the kernel knows its side.
"""

import select
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

_TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
_LOCAL, _REMOTE, _INODE = 1, 2, 9


def has_gone(line: socket.socket) -> bool:
    """Whether nobody can read what would be written to `line`, as far as can be known."""
    try:
        if line.family == socket.AF_UNIX:
            poll = select.poll()
            poll.register(line.fileno(), 0)  # a hang-up is told without being asked for
            return any(happened & select.POLLHUP for _, happened in poll.poll(0))
        ours, theirs = _hex(line.getsockname()), _hex(line.getpeername())
        if not ip_address(line.getpeername()[0].partition("%")[0]).is_loopback:
            return False
        return _is_orphan(_TABLES[line.family].read_text(), local=theirs, remote=ours)
    except (OSError, KeyError, ValueError):
        return False


def _is_orphan(table: str, *, local: str, remote: str) -> bool:
    """Whether a row of proc(5)'s net/tcp belongs to no process, or has ended already."""
    for row in table.splitlines()[1:]:
        fields = row.split()
        if fields[_LOCAL] == local and fields[_REMOTE] == remote:
            return fields[_INODE] == "0"
    return True


def _hex(address: tuple[str, int]) -> str:
    """As the table has it: words of four bytes in the processor's order."""
    packed = ip_address(address[0].partition("%")[0]).packed
    words = [
        int.from_bytes(packed[at : at + 4], sys.byteorder).to_bytes(4, "big")
        for at in range(0, len(packed), 4)
    ]
    return f"{b''.join(words).hex().upper()}:{address[1]:04X}"
