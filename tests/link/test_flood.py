"""Somebody floods a topic: what waits stays bounded, and the pull and the commands go on."""

import asyncio
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.link.handover import MOST_WAITING, Acknowledgements, HandOver
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.link.pace import Pace
from agent.link.pull import blobs
from tests.link.test_pull import CONNECT_S, TOPICS, fetch, pulling, put_on
from tests.simulators.broker import RunningBroker
from tests.simulators.waiting import until
from tests.store.files import a_file, publish


async def test_a_thread_that_brings_messages_waits_for_the_loop() -> None:
    hand_over, carried = HandOver(), []
    hand_over.attach()
    begun = threading.Event()

    def bring() -> None:
        for number in range(3 * MOST_WAITING):
            hand_over.message(partial(carried.append, number))
            begun.set()

    bringing = threading.Thread(target=bring, name="network")
    bringing.start()
    begun.wait(5)  # the loop does not turn meanwhile
    bringing.join(0.2)
    assert bringing.is_alive()
    assert carried == []
    await until(lambda: len(carried) == 3 * MOST_WAITING)
    bringing.join(5)
    assert carried == list(range(3 * MOST_WAITING))


def test_acknowledgements_go_out_in_the_order_in_which_the_messages_came() -> None:
    sent: list[int] = []
    acknowledgements = Acknowledgements(sent.append)
    first, second, third = (acknowledgements.expect(number) for number in (7, 8, 9))
    second()
    assert sent == []
    first()
    assert sent == [7, 8]
    acknowledgements.forget()
    fresh = acknowledgements.expect(7)
    third()  # of a connection that is gone: another message may have this number now
    assert sent == [7, 8]
    fresh()
    assert sent == [7, 8, 7]


async def test_what_was_not_acknowledged_comes_again_after_a_restart(
    each_broker: RunningBroker,
) -> None:
    """The agent was killed between hearing a command and doing it."""
    got: list[Message] = []
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.keep(["t/command"], got.append, late=True)
        await link.connected(CONNECT_S)
        await link.publish("t/command", b"do it")
        await until(lambda: got)
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.keep(["t/command"], got.append, late=True)
        await link.connected(CONNECT_S)
        await until(lambda: len(got) == 2)
        got[1].acknowledge()
        await link.publish("t/command", b"the next one")  # behind it, the acknowledgement is there
        await until(lambda: len(got) == 3)
        got[2].acknowledge()
        await link.publish("t/end", b"")
    async with Link(each_broker.settings(), client_id="device") as link:
        await link.keep(["t/command"], got.append, late=True)
        await link.connected(CONNECT_S)
        await link.publish("t/command", b"a fresh one")
        await until(lambda: len(got) == 4)
    assert [message.payload for message in got] == [
        b"do it", b"do it", b"the next one", b"a fresh one",
    ]  # fmt: skip


async def test_lies_published_while_a_pull_runs_neither_stop_it_nor_get_in(
    each_broker: RunningBroker, tmp_path: Path
) -> None:
    published = publish(a_file(400_000), chunk_bytes=8 * 1024)
    await put_on(each_broker, published.blobs)
    async with (
        Link(each_broker.settings(), client_id="device") as link,
        Link(each_broker.settings(), client_id="liar", clean=True) as liar,
    ):
        await link.connected(CONNECT_S)
        await liar.connected(CONNECT_S)
        lies = 0

        async def lie() -> None:
            nonlocal lies
            while True:
                for name in published.blobs:
                    await liar.publish(TOPICS.blob(name), bytes(100_000), qos=lies % 2)
                    lies += 1
                    await asyncio.sleep(0)

        lying = asyncio.create_task(lie())
        await until(lambda: lies > 20)
        for _ in range(3):
            (tmp_path / "model.onnx").unlink(missing_ok=True)
            fetched = await fetch(published, link, tmp_path)
            assert fetched.pulled <= len(published.blobs)
            assert not fetched.damaged
        lying.cancel()
    assert (tmp_path / "model.onnx").read_bytes() == a_file(400_000)


async def test_no_more_topics_are_subscribed_than_the_window_has(
    broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(a_file(100_000))
    await put_on(broker, published.blobs)
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        held, most = set(), 0
        subscribe, unsubscribe = link._connection.subscribe, link._connection.unsubscribe

        def counting(filters: list[str], **options: bool) -> int:
            nonlocal most
            assert len(filters) <= 8
            held.update(filters)
            most = max(most, len(held))
            return subscribe(filters, **options)

        def forgetting(filters: list[str]) -> None:
            held.difference_update(filters)
            unsubscribe(filters)

        monkeypatch.setattr(link._connection, "subscribe", counting)
        monkeypatch.setattr(link._connection, "unsubscribe", forgetting)
        got = {name async for name, _ in pulling(link, window=16)(list(published.blobs))}
    assert got == set(published.blobs)
    assert 8 <= most <= 16 + 8  # those that are here are let go eight at a time
    assert held == set()


async def test_a_pull_that_is_given_up_leaves_no_subscription(broker: RunningBroker) -> None:
    published = publish(a_file(50_000))
    await put_on(broker, published.blobs)
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        chunks = pulling(link)(list(published.blobs))
        await anext(chunks)
        await chunks.aclose()
        assert link._subscriptions._handlers == {}


def test_a_cap_holds_over_any_minute() -> None:
    now_s = 0.0
    pace = Pace(50_000, clock=lambda: now_s)
    assert pace.at_once(120 * 1024) == 1
    assert Pace(10_000_000).at_once(120 * 1024) == 81
    spent = 0
    while now_s < 60:
        if pace.rest_s() == 0:
            pace.spend(122_880)
            spent += 122_880
        now_s += max(0.01, pace.rest_s())
    assert 60 * 50_000 * 0.95 <= spent <= 61 * 50_000 + 122_880


async def test_a_capped_pull_asks_for_no_more_than_the_cap_and_ends(
    broker: RunningBroker,
) -> None:
    published = publish(a_file(600_000), chunk_bytes=120 * 1024)
    await put_on(broker, published.blobs)
    pace = Pace(1_000_000)
    loop = asyncio.get_running_loop()
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        names, begun_s = list(published.blobs), loop.time()
        got = 0
        for _ in range(4):  # 2.4 MB, of which the first second is free
            async for _, payload in blobs(
                link, topics=TOPICS, names=names, timeout_s=CONNECT_S, pace=pace
            ):
                got += len(payload)
                assert got <= 1_000_000 * (loop.time() - begun_s + 1) + 8 * 122_880
    assert got == 4 * sum(map(len, published.blobs.values()))


async def test_a_pull_that_is_cancelled_as_a_chunk_arrives_ends(broker: RunningBroker) -> None:
    """asyncio.wait_for of Python 3.11 swallows a cancellation that comes with the result."""
    published = publish(a_file(40_000))
    await put_on(broker, published.blobs)
    async with Link(broker.settings(), client_id="device") as link:
        await link.connected(CONNECT_S)
        deliver = link._subscriptions.deliver
        for _ in range(20):
            names = list(published.blobs)

            async def pull(names: list[str] = names) -> None:
                while True:
                    async for _ in pulling(link)(names):
                        pass

            pulling_it = asyncio.create_task(pull())

            def deliver_and_cancel(
                message: Message, task: "asyncio.Task[None]" = pulling_it
            ) -> None:
                deliver(message)
                task.cancel()

            link._connection._hears = replace(link._connection._hears, message=deliver_and_cancel)
            await asyncio.wait({pulling_it}, timeout=CONNECT_S)
            assert pulling_it.cancelled()
