"""How the demo follows a device, over a real broker."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from agent.errors import Refused, Unavailable
from agent.link.mqtt import Link
from agent.protocol.events import Event, Live, Status
from agent.protocol.topics import Topics
from deploy.demo.watch import Watch
from tests.simulators.broker import RunningBroker, iotcore_broker

TOPICS = Topics()
DEVICE = "demo"


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with iotcore_broker() as running:
        yield running


@dataclass
class Seat:
    """A watcher, and a second link that speaks for the device."""

    watch: Watch
    device: Link
    dead: list[str]
    """What is said here has ended."""

    async def tell(self, **fields: object) -> None:
        event = Event.model_validate({"device": DEVICE, "at_s": 0, "model": "m", **fields})
        await self.device.publish(TOPICS.event(DEVICE), event.to_json())

    async def be(self, *models: Live, online: bool = True) -> None:
        status = Status(
            device=DEVICE, online=online, at_s=0, agent_version="1", models=models,
            http_url="http://127.0.0.1:1",
        )  # fmt: skip
        await self.device.publish(TOPICS.status(DEVICE), status.to_json(), retain=True)


@pytest.fixture
async def seat(broker: RunningBroker) -> AsyncIterator[Seat]:
    dead: list[str] = []

    def check() -> None:
        if dead:
            raise Unavailable(f"cannot go on: the {dead[0]} ended")

    async with (
        Link(broker.settings(), client_id="watching", clean=True) as link,
        Link(broker.settings(), client_id="device", clean=True) as device,
    ):
        await link.connected(10)
        await device.connected(10)
        watch = Watch(link, TOPICS, DEVICE, check)
        await watch.begin()
        yield Seat(watch, device, dead)
        await device.publish(TOPICS.status(DEVICE), b"", retain=True)


async def test_follows_a_deployment_to_its_end_and_passes_over_other_models(seat: Seat) -> None:
    seen: list[Event] = []
    await seat.tell(kind="state", state="fetching")
    await seat.tell(kind="state", state="live", model="another")
    await seat.tell(kind="progress", figures={"fraction": 0.5})
    await seat.tell(kind="state", state="live", message="it serves")
    heard = await seat.watch.until_rest("m", seen=0, on_event=seen.append, seconds=10)
    assert [event.kind for event in heard] == ["state", "progress", "state"]
    assert seen == list(heard)


@pytest.mark.parametrize(("state", "error"), [("refused", Refused), ("failed", Unavailable)])
async def test_a_deployment_that_does_not_go_live_is_an_error_with_the_devices_reason(
    seat: Seat, state: str, error: type[Exception]
) -> None:
    await seat.tell(kind="state", state=state, message="peak 212 MiB over budget 180 MiB")
    with pytest.raises(error, match=f"cannot deploy m: {state}: peak 212 MiB over"):
        await seat.watch.until_rest("m", seen=0, on_event=lambda _: None, seconds=10)


async def test_passes_over_what_it_cannot_read(seat: Seat) -> None:
    for payload in (b"", b"not json", b"{}", b'{"device": "demo"}', b"\xff" * 100):
        await seat.device.publish(TOPICS.event(DEVICE), payload)
    await seat.tell(kind="state", state="live")
    await seat.watch.until_rest("m", seen=0, on_event=lambda _: None, seconds=10)
    assert len(seat.watch.events) == 1


async def test_waits_until_the_status_says_that_the_model_really_runs(seat: Seat) -> None:
    loading = Live(name="m", version=1, state="live")
    await seat.be(loading)
    with pytest.raises(Unavailable, match="cannot see m serve: not within 1 s"):
        await seat.watch.serving("m", seconds=1)
    await seat.be(loading.model_copy(update={"sha256": "a" * 64, "variant": "int8"}))
    live = await seat.watch.serving("m", seconds=10)
    assert live.variant == "int8"


async def test_a_device_that_is_offline_is_not_there(seat: Seat) -> None:
    await seat.be(online=False)
    with pytest.raises(Unavailable, match="cannot bring the device online"):
        await seat.watch.online(seconds=0.5)
    await seat.be()
    assert await seat.watch.online(seconds=10) == "http://127.0.0.1:1"


async def test_a_child_that_ends_ends_the_waiting(seat: Seat) -> None:
    waiting = asyncio.create_task(seat.watch.online(seconds=60))
    await asyncio.sleep(0)
    seat.dead.append("agent")
    with pytest.raises(Unavailable, match="the agent ended"):
        await waiting


async def test_a_child_that_ends_cancels_what_is_done_meanwhile(seat: Seat) -> None:
    ended: list[str] = []

    async def work() -> None:
        seat.dead.append("broker")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(Unavailable, match="the broker ended"):
        await seat.watch.meanwhile(work())
    await asyncio.sleep(0)
    assert ended == ["cancelled"]


async def test_the_result_or_the_error_of_what_is_done_comes_through(seat: Seat) -> None:
    async def work(good: bool) -> int:
        if not good:
            raise Refused("cannot do it")
        return 7

    assert await seat.watch.meanwhile(work(good=True)) == 7
    with pytest.raises(Refused, match="cannot do it"):
        await seat.watch.meanwhile(work(good=False))
