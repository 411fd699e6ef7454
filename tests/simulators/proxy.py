"""A TCP proxy that can stall, cut, slow down and corrupt what flows from the server."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

_BLOCK_BYTES = 16 * 1024


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`; its faults act on server -> client bytes.

    `cut_after` and `corrupt_at` are byte offsets since the proxy began, over all connections;
    each fault happens once. `bytes_per_s` slows both directions down.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self.passed_bytes = 0
        self.cut_after: int | None = None
        self.corrupt_at: int | None = None
        self.bytes_per_s: float | None = None
        self.accepting = True
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.resume()
        self.cut()
        # From Python 3.12.1 on this waits for the handlers, which end with their connections.
        await asyncio.wait_for(self._server.wait_closed(), 10)

    def stall(self) -> None:
        """Keep the connections and pass nothing, as a dead radio link does."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let it flow again."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self.accepting:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        flows = [
            asyncio.create_task(self._flow(reader, up_writer, faulty=False), name="proxy up"),
            asyncio.create_task(self._flow(up_reader, writer, faulty=True), name="proxy down"),
        ]
        await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, up_writer):
            end.transport.abort()
        await asyncio.gather(*flows, return_exceptions=True)
        self._writers -= {writer, up_writer}

    async def _flow(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, faulty: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while block := await reader.read(_BLOCK_BYTES):
                await self._flowing.wait()
                if self.bytes_per_s:
                    await asyncio.sleep(len(block) / self.bytes_per_s)
                writer.write(self._damaged(block) if faulty else block)
                await writer.drain()
                if faulty and self.cut_after is not None and self.passed_bytes >= self.cut_after:
                    self.cut_after = None
                    return

    def _damaged(self, block: bytes) -> bytes:
        start, self.passed_bytes = self.passed_bytes, self.passed_bytes + len(block)
        if self.corrupt_at is None or not start <= self.corrupt_at < self.passed_bytes:
            return block
        at, self.corrupt_at = self.corrupt_at - start, None
        return block[:at] + bytes([block[at] ^ 0x55]) + block[at + 1 :]
