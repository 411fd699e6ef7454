"""Constant load from a process of its own: `python -m tests.serving.load PLAN`, steered by lines.

A line on its input begins a phase of that name; the end of its input ends it. Then it writes one
JSON document: what each group of clients saw in each phase.
"""

import asyncio
import json
import pickle
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop


@dataclass(frozen=True)
class Group:
    """Clients that ask alike, in turn one of `requests` (whole, as they go over the wire).

    `rate_hz` is each client's; 0 asks again as soon as it is answered. `known` names what an
    answer's last bytes mean; `versions` says which version may give which, modulo its length.
    """

    name: str
    clients: int
    rate_hz: float
    requests: tuple[bytes, ...]
    known: tuple[dict[bytes, str], ...] = ()
    versions: tuple[str, ...] = ()


@dataclass
class Seen:
    """What a group saw in one phase."""

    latencies_ms: list[float] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)


class Load:
    """All groups against one address."""

    def __init__(self, host: str, port: int, groups: list[Group]) -> None:
        self._address = (host, port)
        self._groups = groups
        self.seen: dict[str, dict[str, Seen]] = defaultdict(lambda: defaultdict(Seen))
        self._phase = "begin"
        self._ended = False

    async def run(self) -> None:
        """Ask until the input ends."""
        clients = [
            asyncio.create_task(self._client(group, at))
            for group in self._groups
            for at in range(group.clients)
        ]
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            self._phase = line.decode().strip()
            print("ok", flush=True)
        self._ended = True
        await asyncio.gather(*clients)

    async def _client(self, group: Group, at: int) -> None:
        turn = at
        due = time.perf_counter() + at / max(group.clients * group.rate_hz, 1)
        while not self._ended:
            seen = self.seen[group.name][self._phase]
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except ConnectionRefusedError:
                seen.found["refused"] += 1
                continue
            try:
                while not self._ended:
                    if group.rate_hz:
                        await asyncio.sleep(max(0.0, due - time.perf_counter()))
                        due = max(due + 1 / group.rate_hz, time.perf_counter() - 1 / group.rate_hz)
                    turn += 1
                    seen = self.seen[group.name][self._phase]
                    await self._ask(group, turn % len(group.requests), reader, writer, seen)
            except (ConnectionError, asyncio.IncompleteReadError):
                seen.found["broken"] += 1
            finally:
                writer.close()

    async def _ask(
        self,
        group: Group,
        which: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seen: Seen,
    ) -> None:
        began = time.perf_counter()
        writer.write(group.requests[which])
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.lower()
        length = int(fields.split(b"content-length: ")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
        seen.latencies_ms.append((time.perf_counter() - began) * 1e3)
        status = head[9:12].decode()
        seen.found[self._meaning(group, which, body) if status == "200" else status] += 1

    def _meaning(self, group: Group, which: int, body: bytes) -> str:
        if not group.known:
            return "200"
        size = len(next(iter(group.known[which])))
        variant = group.known[which].get(body[-size:])
        if variant is None:
            return "mixed"
        version = int(body.split(b'"model_version":"')[1].split(b'"')[0])
        expected = group.versions[version % len(group.versions)]
        return variant if variant == expected else "another version's"


def told(load: Load) -> dict[str, Any]:
    """What was seen, by group and phase."""
    return {
        group: {
            phase: {"found": dict(seen.found), "latencies_ms": seen.latencies_ms}
            for phase, seen in phases.items()
        }
        for group, phases in load.seen.items()
    }


def main(plan: Path) -> None:
    """Run a plan: host, port and groups, pickled by the test."""
    load = Load(*pickle.loads(plan.read_bytes()))
    uvloop.run(load.run())
    json.dump(told(load), sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
