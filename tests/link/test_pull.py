"""Pulling a 5 MB file over real brokers: whole, cut, slowed, damaged, restarted."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Corrupt, Unavailable
from agent.link.mqtt import Link
from agent.link.pull import blobs
from agent.link.retained import retained
from agent.protocol import chunking
from agent.protocol.topics import Topics
from agent.store.download import Fetched, fetch_file
from agent.store.index import Get
from tests.simulators.broker import RunningBroker, mosquitto_broker, needs_mosquitto
from tests.simulators.proxy import Proxy
from tests.simulators.waiting import until
from tests.store.files import Published, a_file, publish

TOPICS = Topics("t/v1")
CONNECT_S = 15.0
FIVE_MB = 5_000_000


def five_megabytes() -> Published:
    return publish(a_file(FIVE_MB), chunk_bytes=chunking.CHUNK_BYTES)


async def put_on(broker: RunningBroker, blobs: dict[str, bytes]) -> None:
    async with Link(broker.settings(), client_id="publisher", clean=True) as link:
        await link.connected(CONNECT_S)
        for name, payload in blobs.items():
            await link.publish(TOPICS.blob(name), payload, retain=True)


def pulling(link: Link, *, timeout_s: float = CONNECT_S, window: int = 24) -> Get:
    def get(names: Sequence[str]) -> AsyncGenerator[tuple[str, bytes], None]:
        return blobs(link, topics=TOPICS, names=names, timeout_s=timeout_s, window=window)

    return get


async def fetch(
    published: Published, link: Link, folder: Path, *, window: int = 24, **options: Any
) -> Fetched:
    return await fetch_file(
        published.ref,
        get=pulling(link, window=window),
        window=window,
        target=folder / "model.onnx",
        **options,
    )


async def test_a_file_arrives_in_windows_of_retained_messages(
    each_broker: RunningBroker, tmp_path: Path
) -> None:
    published = five_megabytes()
    await put_on(each_broker, published.blobs)
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        assert not (await fetch(published, link, tmp_path)).damaged
    assert (tmp_path / "model.onnx").read_bytes() == a_file(FIVE_MB)


async def test_a_resumed_session_that_already_holds_the_topics_still_gets_them(
    each_broker: RunningBroker, tmp_path: Path
) -> None:
    """An agent that was killed in mid-window left its subscriptions behind on the broker."""
    published = publish(a_file(50_000))
    await put_on(each_broker, published.blobs)
    names = list(published.blobs)[:24]
    async with Proxy(each_broker.port) as proxy:
        settings = each_broker.settings(port=proxy.port)
        killed = Link(settings, client_id="device")
        await killed.start()
        await killed.connected(CONNECT_S)
        got: list[object] = []
        await killed.subscribe([TOPICS.blob(name) for name in names], got.append)
        await until(lambda: len(got) == 24)
        proxy.accepting = False
        proxy.cut()
        await killed.stop()
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        found = {name async for name, _ in pulling(link)(names)}
    assert found == set(names)


async def test_a_cut_in_the_middle_is_waited_out(
    each_broker: RunningBroker, tmp_path: Path
) -> None:
    published = five_megabytes()
    await put_on(each_broker, published.blobs)
    async with (
        Proxy(each_broker.port) as proxy,
        Link(each_broker.settings(port=proxy.port), client_id="device") as link,
    ):
        await link.connected(CONNECT_S)
        proxy.cut_after = proxy.passed_bytes + 2_000_000
        await fetch(published, link, tmp_path)
        assert link.connects == 2
    assert (tmp_path / "model.onnx").read_bytes() == a_file(FIVE_MB)


async def test_a_byte_damaged_on_the_way_is_fetched_again(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """TCP's checksum is weak; ours is not. The damaged byte may also break the packet itself."""
    published = five_megabytes()
    await put_on(broker, published.blobs)
    async with (
        Proxy(broker.port) as proxy,
        Link(broker.settings(port=proxy.port), client_id="device") as link,
    ):
        await link.connected(CONNECT_S)
        proxy.corrupt_at = proxy.passed_bytes + 1_500_000
        damaged = (await fetch(published, link, tmp_path)).damaged
        assert damaged.total() == 1 or link.connects > 1
        assert proxy.corrupt_at is None
    assert (tmp_path / "model.onnx").read_bytes() == a_file(FIVE_MB)


async def test_a_retained_chunk_that_is_wrong_on_the_broker_is_named(
    broker: RunningBroker, tmp_path: Path
) -> None:
    published = publish(a_file(50_000))
    victim = list(published.blobs)[3]
    await put_on(broker, published.blobs | {victim: b"poison"})
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        with pytest.raises(Corrupt, match=rf"chunk {victim[:12]}.*\(3 times\)"):
            await fetch(published, link, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


async def test_missing_chunks_are_counted_when_nothing_comes_any_more(
    broker: RunningBroker,
) -> None:
    published = publish(a_file(10_000))
    names = list(published.blobs)[:10]
    await put_on(broker, {name: published.blobs[name] for name in names[:7]})
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        got = set()

        async def pull() -> None:
            async for name, _ in pulling(link, timeout_s=0.6)(names):
                got.add(name)

        with pytest.raises(Unavailable, match=r"cannot pull 3 of 10 chunks: .*nothing for 0\.6 s"):
            await pull()
        assert got == set(names[:7])


async def test_a_window_ends_when_the_broker_stays_away(broker: RunningBroker) -> None:
    published = publish(a_file(10_000))
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        broker.kill()
        with pytest.raises(Unavailable, match="cannot reach broker"):
            async for _ in pulling(link, timeout_s=0.6)(list(published.blobs)[:4]):
                pass


async def test_a_broker_that_forgets_at_a_restart_is_healed_by_publishing_again(
    broker: RunningBroker, tmp_path: Path
) -> None:
    """rumqttd keeps what is retained in memory; the operator's publish is repeatable."""
    published = five_megabytes()
    await put_on(broker, published.blobs)
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        restarted: list[asyncio.Task[None]] = []

        async def restart() -> None:
            await asyncio.to_thread(broker.start)
            await put_on(broker, published.blobs)

        def kill_midway(done: int, total: int) -> None:
            if not restarted and done >= total // 2:
                broker.kill()
                restarted.append(asyncio.create_task(restart()))

        await fetch(published, link, tmp_path, on_progress=kill_midway, window=8)
        await restarted[0]
        assert link.connects == 2
    assert (tmp_path / "model.onnx").read_bytes() == a_file(FIVE_MB)


@needs_mosquitto
async def test_a_broker_that_persists_goes_on_after_a_kill(tmp_path: Path) -> None:
    published = five_megabytes()
    with mosquitto_broker(persistence=True) as broker:
        await put_on(broker, published.blobs)
        broker.stop()  # writes its file
        broker.start()
        async with Link(broker.settings(), client_id="device") as link:
            await link.connected(CONNECT_S)
            kills: list[int] = []

            def kill_midway(done: int, total: int) -> None:
                if not kills and done >= total // 2:
                    kills.append(done)
                    broker.kill()
                    broker.start()

            await fetch(published, link, tmp_path, on_progress=kill_midway, window=8)
            assert kills
            assert link.connects == 2
    assert (tmp_path / "model.onnx").read_bytes() == a_file(FIVE_MB)


async def test_one_retained_message_is_found_or_said_to_be_absent(
    each_broker: RunningBroker,
) -> None:
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        with pytest.raises(Unavailable, match=r"cannot find t/m/1 on broker .*: not published"):
            await retained(link, "t/m/1", timeout_s=0.3)
        await link.publish("t/m/1", b"manifest", retain=True)
        assert await retained(link, "t/m/1", timeout_s=CONNECT_S) == b"manifest"
        assert await retained(link, "t/m/1", timeout_s=CONNECT_S) == b"manifest"
