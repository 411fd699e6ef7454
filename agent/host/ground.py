"""What outlives every process of the server: its listening sockets and the crash page."""

import contextlib
import mmap
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.host import listening
from agent.host.offer import INFERENCE, Offer
from agent.protocol import crash_page
from agent.protocol.crash_page import CrashPage


@dataclass(frozen=True)
class Ground:
    """Open until `close`."""

    http_port: int
    public: tuple[socket.socket, ...]
    private: socket.socket
    private_path: Path
    page_fd: int
    page: CrashPage
    offer: Offer
    _closing: contextlib.ExitStack

    @property
    def arguments(self) -> list[str]:
        """The server's arguments: descriptors, and what it offers."""
        public = [word for each in self.public for word in ("--public-fd", str(each.fileno()))]
        private = ["--private-fd", str(self.private.fileno())]
        page = ["--crash-page-fd", str(self.page_fd)]
        return [*public, *private, *page, *self.offer.arguments]

    @property
    def descriptors(self) -> list[int]:
        """What the server inherits."""
        return [*(each.fileno() for each in self.public), self.private.fileno(), self.page_fd]

    def close(self) -> None:
        """Close everything and remove the socket files. Fine to call twice."""
        self._closing.close()


def prepare(
    *, host: str, port: int, unix_path: Path | None, private_dir: Path | None = None,
    offer: Offer = INFERENCE,
) -> Ground:  # fmt: skip
    """Bind the public sockets (TCP, and a Unix socket where a path is given) and the private one.

    Where systemd hands sockets over, these are the public ones. The private one lies in
    `private_dir`, which is ours alone and outlives us, so that a kill
    leaves nothing behind; without it, or where its path is too long, in a temporary folder.

    Raises:
        BadInput, Unavailable: as agent.host.listening and Offer.check.
    """
    with contextlib.ExitStack() as closing:
        public = [closing.enter_context(each) for each in listening.handed_over()]
        hosts = [each.getsockname()[0] for each in public if each.family != socket.AF_UNIX]
        for each in hosts if public else [host]:
            offer.check(each)
        bound = not public
        if bound:
            public.append(closing.enter_context(listening.tcp(host, port)))
        if bound and unix_path is not None:
            public.append(closing.enter_context(listening.unix(unix_path)))
            closing.callback(unix_path.unlink, missing_ok=True)
        private_path = closing.enter_context(_private(private_dir)) / "server.sock"
        private = closing.enter_context(listening.unix(private_path))
        page_fd = os.memfd_create("trimtab crash page", os.MFD_CLOEXEC)
        closing.callback(os.close, page_fd)
        os.ftruncate(page_fd, crash_page.BYTES)
        return Ground(
            http_port=_port(public),
            public=tuple(public),
            private=private,
            private_path=private_path,
            page_fd=page_fd,
            page=CrashPage(mmap.mmap(page_fd, crash_page.BYTES)),
            offer=offer,
            _closing=closing.pop_all(),
        )


def _port(public: Sequence[socket.socket]) -> int:
    """The first TCP port; 0 where there are only Unix sockets."""
    ports = [each.getsockname()[1] for each in public if each.family != socket.AF_UNIX]
    return int(ports[0]) if ports else 0


@contextlib.contextmanager
def _private(folder: Path | None) -> Iterator[Path]:
    """A folder of mode 0700: nobody else may speak to the private socket."""
    if folder is None or len(os.fsencode(folder / "server.sock")) > listening.PATH_BYTES:
        # Under a short path, whatever TMPDIR says.
        short = None if len(tempfile.gettempdir()) < 60 else "/tmp"  # noqa: S108 - made with mode 0700
        with tempfile.TemporaryDirectory(prefix="trimtab-", dir=short) as name:
            yield Path(name)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    yield folder
    (folder / "server.sock").unlink(missing_ok=True)
