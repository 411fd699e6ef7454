"""A pull whose link is cut, stalled and slowed at random bytes: whole, and nearly nothing twice."""

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.link.mqtt import Link
from agent.protocol import chunking
from agent.store.download import Fetched, fetch_file
from tests.link.test_pull import CONNECT_S, pulling, put_on
from tests.simulators.broker import RunningBroker
from tests.simulators.proxy import Proxy
from tests.store.files import Published, a_file, publish

SIZE_BYTES = 6_000_000
WINDOW = 16
SLOW_BYTES_PER_S = 8_000_000
FAULTS = ("cut", "stall, then cut", "slow", "begun again")


@dataclass(frozen=True)
class Run:
    """What one pull cost, as shares of the bytes that must travel at least."""

    faults: Counter[str]
    received: float
    """Chunks that reached the store, whole or not."""
    sent: float
    """All that the broker sent, packets' heads and what was lost on the way included."""


async def make_trouble(
    proxy: Proxy, chance: random.Random, faults: Counter[str], again: asyncio.Event
) -> None:
    """Every so many bytes (so it does not matter how fast a machine is) something happens."""
    while True:
        at_byte = proxy.passed_bytes + chance.randrange(50_000, 2_500_000)
        while proxy.passed_bytes < at_byte:
            await asyncio.sleep(0.001)
        fault = chance.choice(FAULTS)
        faults[fault] += 1
        proxy.bytes_per_s = SLOW_BYTES_PER_S if fault == "slow" else None
        if fault == "stall, then cut":
            proxy.stall()
            await asyncio.sleep(chance.uniform(0.0, 0.2))
        if fault == "begun again":
            again.set()
        elif fault != "slow":
            proxy.cut()
        proxy.resume()


async def pull(published: Published, link: Link, target: Path, again: asyncio.Event) -> Fetched:
    """Pull, and begin again whenever it is said, until it is whole."""
    total = Fetched()

    def counted(fetched: Fetched) -> None:
        total.sent_bytes += fetched.sent_bytes

    while True:
        again.clear()
        source, mine = pulling(link, window=WINDOW), Fetched()

        async def get(names, source=source, mine=mine):
            async with contextlib.aclosing(source(names)) as chunks:
                async for name, payload in chunks:
                    mine.sent_bytes += len(payload)
                    yield name, payload

        pulling_it = asyncio.create_task(
            fetch_file(published.ref, get=get, target=target, window=WINDOW)
        )
        stopped = asyncio.create_task(again.wait())
        await asyncio.wait({pulling_it, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        done = pulling_it.done()
        pulling_it.cancel()
        await asyncio.wait({pulling_it})
        counted(mine)
        if done:
            pulling_it.result()
            return total


async def one_run(broker: RunningBroker, published: Published, folder: Path, *, seed: int) -> Run:
    """One pull in trouble."""
    faults: Counter[str] = Counter()
    again = asyncio.Event()
    async with (
        Proxy(broker.port) as proxy,
        Link(broker.settings(port=proxy.port), client_id=f"device-{seed}") as link,
    ):
        await link.connected(CONNECT_S)
        before = proxy.passed_bytes
        chance = random.Random(seed)
        trouble = asyncio.create_task(make_trouble(proxy, chance, faults, again))
        fetched = await pull(published, link, folder / f"{seed}.onnx", again)
        trouble.cancel()
        await asyncio.wait({trouble})
        least = sum(map(len, published.blobs.values()))
        return Run(faults, fetched.sent_bytes / least, (proxy.passed_bytes - before) / least)


async def runs(broker: RunningBroker, folder: Path, seeds: range) -> list[Run]:
    """Several of them; each file is compared with what was published."""
    published = publish(a_file(SIZE_BYTES), chunk_bytes=chunking.CHUNK_BYTES)
    await put_on(broker, published.blobs)
    found = []
    for seed in seeds:
        found.append(await one_run(broker, published, folder, seed=seed))
        assert (folder / f"{seed}.onnx").read_bytes() == a_file(SIZE_BYTES)
        (folder / f"{seed}.onnx").unlink()
    return found


async def test_a_link_in_trouble_costs_a_part_of_a_window_for_each_cut(
    each_broker: RunningBroker, tmp_path: Path
) -> None:
    for run in await runs(each_broker, tmp_path, range(3)):
        # What was under way when it happened comes again, and nothing else does.
        window = WINDOW * chunking.CHUNK_BYTES / SIZE_BYTES
        assert run.received <= 1 + 0.001 + run.faults.total() * window


@pytest.mark.prove
@pytest.mark.parametrize("part", range(5))
async def test_fifty_pulls_over_a_link_in_trouble(
    each_broker: RunningBroker, tmp_path: Path, part: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await runs(each_broker, tmp_path, range(100 + part * 10, 110 + part * 10))
    received, sent = sorted(run.received for run in found), sorted(run.sent for run in found)
    faults = sum((run.faults for run in found), Counter())
    with capsys.disabled():
        print(
            f"\n10 pulls of {SIZE_BYTES / 1e6:.0f} MB, all whole; faults: "
            f"{', '.join(f'{count} {name}' for name, count in sorted(faults.items()))}; bytes over "
            f"the least: received median {received[5] - 1:.1%}, most {received[-1] - 1:.1%}; sent "
            f"by the broker median {sent[5] - 1:.1%}, most {sent[-1] - 1:.1%}"
        )
    assert all(run.received <= 1.001 + 0.4 * run.faults.total() for run in found)
