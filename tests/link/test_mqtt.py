"""The link against real brokers: going down, coming back, being denied, being evicted."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config import Broker
from agent.errors import BadConfig, BadInput, Refused, Unavailable
from agent.link import uptime
from agent.link.dialling import MOST_PACKET_BYTES
from agent.link.messages import Message, Will
from agent.link.mqtt import Link
from tests.simulators.broker import RunningBroker, free_port, mosquitto_broker, needs_mosquitto
from tests.simulators.proxy import Proxy
from tests.simulators.waiting import until

CONNECT_S = 15.0


def link_to(broker: RunningBroker, client_id: str = "device", **options: Any) -> Link:
    return Link(broker.settings(), client_id=client_id, **options)


async def test_a_message_arrives_with_its_response_topic_and_correlation(
    each_broker: RunningBroker,
) -> None:
    got: list[Message] = []
    async with link_to(each_broker) as link:
        await link.keep(["t/device/+/command"], got.append)
        await link.connected(CONNECT_S)
        await link.publish(
            "t/device/d1/command",
            b"do it",
            response_topic="t/operator/o/reply",
            correlation=b"\x00\x01",
            expiry_s=30,
        )
        await until(lambda: got)
    assert got == [
        Message("t/device/d1/command", b"do it", False, "t/operator/o/reply", b"\x00\x01")
    ]


async def test_twenty_filters_are_subscribed_in_packets_that_aws_would_take(
    each_broker: RunningBroker,
) -> None:
    got: list[Message] = []
    topics = [f"t/blob/{n}" for n in range(20)]
    async with link_to(each_broker) as link:
        await link.connected(CONNECT_S)
        for topic in topics:
            await link.publish(topic, topic.encode(), retain=True)
        await link.subscribe(topics, got.append)
        await until(lambda: len(got) == 20)
        link.unsubscribe(topics)
        await link.publish(topics[0], b"nobody listens")
        await link.subscribe(["t/last"], got.append)
        await link.publish("t/last", b"x")
        await until(lambda: got[-1].topic == "t/last")
    assert {m.topic for m in got[:20]} == set(topics)
    assert all(m.retain for m in got[:20])
    assert len(got) == 21


async def test_an_absent_broker_is_no_exception_until_somebody_asks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Broker(host="127.0.0.1", port=free_port(), reconnect_least_s=0.01)
    caplog.set_level(logging.WARNING)
    async with Link(settings, client_id="device") as link:
        with pytest.raises(Unavailable, match=r"cannot reach broker 127\.0\.0\.1:\d+: .*refused"):
            await link.connected(0.5)
        with pytest.raises(Unavailable, match=r"cannot publish to t: .* is not connected"):
            await link.publish("t", b"x")
        with pytest.raises(Unavailable, match="is not connected"):
            await link.subscribe(["t"], print)
    assert "trying again in" in caplog.text


async def test_standing_filters_come_back_after_the_broker_forgot_everything(
    broker: RunningBroker,
) -> None:
    got: list[Message] = []
    ups: list[int] = []
    async with link_to(broker, on_connected=lambda: ups.append(1)) as link:
        await link.keep(["t/command"], got.append)
        await link.connected(CONNECT_S)
        broker.kill()
        await until(lambda: not link.online)
        broker.start()
        await link.connected(CONNECT_S)
        await link.publish("t/command", b"after")
        await until(lambda: got)
    assert got[0].payload == b"after"
    assert len(ups) == link.connects == 2


async def test_a_publish_is_acknowledged_across_a_cut(each_broker: RunningBroker) -> None:
    got: list[Message] = []
    async with Proxy(each_broker.port) as proxy:
        settings = each_broker.settings(port=proxy.port)
        async with link_to(each_broker, "watcher", clean=True) as watcher:
            await watcher.keep(["t/event"], got.append)
            await watcher.connected(CONNECT_S)
            async with Link(settings, client_id="device") as link:
                await link.connected(CONNECT_S)
                proxy.stall()
                sending = asyncio.create_task(link.publish("t/event", b"important"))
                await asyncio.sleep(0.1)
                assert not sending.done()
                proxy.cut()
                proxy.resume()
                await asyncio.wait_for(sending, CONNECT_S)
                assert link.connects == 2
            await until(lambda: got)
    assert {m.payload for m in got} == {b"important"}


async def test_a_message_that_makes_the_broker_hang_up_is_given_up(broker: RunningBroker) -> None:
    async with link_to(broker) as link:
        await link.connected(CONNECT_S)
        with pytest.raises(Unavailable, match="cannot publish to t/big: connection lost"):
            await asyncio.wait_for(link.publish("t/big", b"x" * 300_000), CONNECT_S)
        await link.connected(CONNECT_S)
        await link.publish("t/small", b"x")


async def test_a_damaged_packet_ends_the_connection_and_not_the_link(
    broker: RunningBroker,
) -> None:
    got: list[Message] = []
    async with Proxy(broker.port) as proxy:
        settings = broker.settings(port=proxy.port, keepalive_s=5)
        async with Link(settings, client_id="device") as link:
            await link.keep(["t/+"], got.append)
            await link.connected(CONNECT_S)
            proxy.corrupt_at = proxy.passed_bytes  # the first byte of the next packet: its type
            with pytest.raises(Unavailable):
                await link.subscribe([f"t/{n}" for n in range(8)], got.append)
            await until(lambda: link.connects == 2)
            await link.publish("t/x", b"still here")
            await until(lambda: got)


async def test_a_cut_connection_fails_a_subscribe_that_waits(broker: RunningBroker) -> None:
    async with (
        Proxy(broker.port) as proxy,
        Link(broker.settings(port=proxy.port), client_id="device") as link,
    ):
        await link.connected(CONNECT_S)
        proxy.stall()
        asking = asyncio.create_task(link.subscribe(["t/x"], print))
        await asyncio.sleep(0.05)
        proxy.cut()
        proxy.resume()
        with pytest.raises(Unavailable, match="cannot subscribe to t/x"):
            await asyncio.wait_for(asking, CONNECT_S)


async def test_stop_returns_although_the_connection_has_stalled(broker: RunningBroker) -> None:
    async with Proxy(broker.port) as proxy:
        link = Link(broker.settings(port=proxy.port), client_id="device")
        await link.start()
        await link.connected(CONNECT_S)
        proxy.stall()
        sending = asyncio.create_task(link.publish("t/x", b"x" * 100_000))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(link.stop(), CONNECT_S)
        with pytest.raises(Unavailable, match="stopped"):
            await sending


async def test_the_will_is_published_for_a_client_that_is_cut_and_not_for_a_goodbye(
    each_broker: RunningBroker,
) -> None:
    got: list[Message] = []
    async with (
        Proxy(each_broker.port) as proxy,
        link_to(each_broker, "watcher", clean=True) as watcher,
    ):
        await watcher.keep(["t/+"], got.append)
        await watcher.connected(CONNECT_S)
        async with link_to(each_broker, "polite", will=Will("t/polite", b"gone")) as polite:
            await polite.connected(CONNECT_S)
        settings = each_broker.settings(
            port=proxy.port, reconnect_least_s=100, reconnect_most_s=100
        )
        link = Link(
            settings,
            client_id="cut",
            will=Will("t/cut", b"gone"),
            uniform=lambda _, high: high,
        )
        async with link:
            await link.connected(CONNECT_S)
            proxy.cut()
            await until(lambda: got)
    assert [(m.topic, m.payload) for m in got] == [("t/cut", b"gone")]


async def test_commands_sent_while_the_device_was_away_are_kept_in_its_session(
    each_broker: RunningBroker,
) -> None:
    got: list[Message] = []
    async with link_to(each_broker) as link:
        await link.keep(["t/command"], got.append)
        await link.connected(CONNECT_S)
    async with link_to(each_broker, "operator", clean=True) as operator:
        await operator.connected(CONNECT_S)
        await operator.publish("t/command", b"while away")
    async with link_to(each_broker) as link:
        await link.keep(["t/command"], got.append)
        await until(lambda: got)
    assert got[0].payload == b"while away"


@needs_mosquitto
async def test_a_denied_publish_names_the_brokers_reason() -> None:
    with mosquitto_broker(acl="topic read t/#\n") as broker:
        async with link_to(broker) as link:
            await link.connected(CONNECT_S)
            with pytest.raises(Refused, match=r"'Not authorized' \(0x87\)"):
                await link.publish("t/x", b"x")


@needs_mosquitto
async def test_a_standing_filter_that_was_denied_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uptime, "STAND_AGAIN_S", 0.05)
    refused: list[int] = []

    with mosquitto_broker() as broker:
        link = link_to(broker)
        subscribe = link._subscribe

        async def moody(filters: Sequence[str]) -> None:
            if len(refused) < 2:
                refused.append(1)
                raise Unavailable("cannot subscribe: denied")
            await subscribe(filters)

        monkeypatch.setattr(link, "_subscribe", moody)
        got: list[Message] = []
        async with link:
            await link.keep(["t/command"], got.append)
            await link.connected(CONNECT_S)
            await until(lambda: len(refused) == 2)
            await asyncio.sleep(0.2)
            await link.publish("t/command", b"heard")
            await until(lambda: got)
            assert link.connects == 1


async def test_a_topic_that_is_none_is_bad_input(broker: RunningBroker) -> None:
    async with link_to(broker) as link:
        await link.connected(CONNECT_S)
        for topic in ("t/#", "t/+/x"):
            with pytest.raises(BadInput, match="cannot publish to"):
                await link.publish(topic, b"x")


@needs_mosquitto
async def test_a_message_that_would_fill_the_memory_is_not_sent_to_us() -> None:
    got: list[Message] = []
    with mosquitto_broker() as broker:
        async with link_to(broker) as link:
            await link.keep(["t/+"], got.append)
            await link.connected(CONNECT_S)
            await link.publish("t/huge", bytes(MOST_PACKET_BYTES))
            await link.publish("t/small", b"x")
            await until(lambda: got)
    assert [message.topic for message in got] == ["t/small"]


def test_a_certificate_without_an_authority_is_no_reason_to_speak_in_the_clear(
    tmp_path: Path,
) -> None:
    with pytest.raises(BadConfig, match="no TLS without it"):
        Link(Broker(certificate_file=tmp_path / "c.pem"), client_id="device")


async def test_two_devices_with_one_id_raise_an_alarm_and_back_off(
    each_broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with link_to(each_broker, "same") as first, link_to(each_broker, "same") as second:
        await until(lambda: "client id" in caplog.text)
        assert first.connects + second.connects >= 2


@needs_mosquitto
async def test_a_refused_login_says_so() -> None:
    with mosquitto_broker(anonymous=False) as broker:
        async with link_to(broker) as link:
            with pytest.raises(Unavailable, match="refused with 'Not authorized'"):
                await link.connected(1.0)


@needs_mosquitto
async def test_a_payload_over_the_brokers_packet_size_is_bad_input_before_it_is_sent() -> None:
    with mosquitto_broker(extra="max_packet_size 20000") as broker:
        async with link_to(broker) as link:
            await link.connected(CONNECT_S)
            with pytest.raises(BadInput, match="takes packets of at most 20000"):
                await link.publish("t/x", b"x" * 20_000)


def test_tls_files_that_cannot_be_used_are_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(BadConfig, match=r"cannot use TLS with .*ca\.pem"):
        Link(Broker(ca_file=tmp_path / "ca.pem"), client_id="device")
