"""Work that can wait: it begins when the device is idle, makes way, goes on, and is told."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Idle
from agent.control import idleness
from agent.control.states import State
from agent.device.idleness import Reading
from agent.protocol.commands import Recompress
from agent.protocol.events import IdleWork
from tests.control.orders import deploy, ended
from tests.simulators.world import World, measured

BUSY = Reading(others_cpu_share=0.9)
ORDER = Recompress(model="m", collect_inputs=0, observe_minutes=0)


def works(world: World) -> tuple[IdleWork, ...]:
    return world.leisure_now.works()


async def turned(check: Callable[[], bool]) -> None:
    """Wait for something that only needs turns of the loop."""
    for _ in range(10_000):
        if check():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came")


@pytest.fixture
async def deployed(world: World) -> World:
    """A device that serves, and a worker that would now make something better."""
    deployer = world.deployer()
    await deploy(deployer)
    await deployer.stop()
    world.rungs = {"better": measured(size_mib=0.9, agreement=0.999)}
    return world


async def test_it_begins_when_it_has_been_calm_for_long_enough(deployed: World) -> None:
    deployed.reading = BUSY
    deployer = deployed.deployer()
    await deployer.resume()
    await deployer.again("command-2", ORDER)
    await turned(lambda: any("90%" in work.because for work in works(deployed)))
    (work,) = works(deployed)
    assert (work.model, work.version, work.working, work.worked_s) == ("m", 1, False, 0.0)
    assert work.waited_s > 0
    assert deployed.counts["compress"] == 1, "of the first deployment"
    deployed.reading = Reading()
    record = await deployer.wait("m")
    assert ended(record) == (State.LIVE, "'better' serves")
    assert works(deployed) == ()
    told = [message for kind, _, message in deployed.events if kind == "progress"]
    assert "going on: the device is idle" in told


async def test_it_makes_way_in_the_middle_and_goes_on(deployed: World) -> None:
    deployer = deployed.deployer()
    await deployer.resume()
    seen: list[IdleWork] = []

    async def while_it_works() -> None:
        deployed.reading = BUSY
        await turned(lambda: not works(deployed)[0].working)
        seen.extend(works(deployed))
        assert not deployed.heavy.held, "others may measure meanwhile"
        deployed.reading = Reading()
        await turned(lambda: works(deployed)[0].working)
        seen.extend(works(deployed))

    deployed.before["compress"] = while_it_works
    await deployer.again("command-2", ORDER)
    assert ended(await deployer.wait("m")) == (State.LIVE, "'better' serves")
    assert [(work.working, work.pauses) for work in seen] == [(False, 1), (True, 1)]
    assert seen[0].because == "others take 90% of the processor, more than 20%"
    assert seen[1].waited_s > seen[0].waited_s >= 60
    told = [message for kind, _, message in deployed.events if kind == "progress"]
    assert "paused: others take 90% of the processor, more than 20%" in told


async def test_what_was_asked_for_is_measured_first(deployed: World) -> None:
    deployer = deployed.deployer()
    await deployer.resume()
    measured_meanwhile = asyncio.Event()

    async def somebody_else() -> None:
        async with deployed.heavy:
            assert [work.because for work in works(deployed)] == [
                "something else is to be measured"
            ]
            measured_meanwhile.set()

    async def while_it_works() -> None:
        other = asyncio.create_task(somebody_else())
        await turned(lambda: measured_meanwhile.is_set() and works(deployed)[0].working)
        await other

    deployed.before["compress"] = while_it_works
    await deployer.again("command-2", ORDER)
    assert ended(await deployer.wait("m")) == (State.LIVE, "'better' serves")
    assert not deployed.heavy.held


@pytest.mark.parametrize("reading", [BUSY, Reading()])
async def test_it_can_be_cancelled_while_it_waits_and_while_it_works(
    deployed: World, reading: Reading
) -> None:
    deployer = deployed.deployer()
    await deployer.resume()
    deployed.reading = reading
    deployed.before["compress"] = asyncio.Event().wait
    await deployer.again("command-2", ORDER)
    await turned(lambda: any(work.working is (reading != BUSY) for work in works(deployed)))
    assert await deployer.cancel("m") == "cancelled"
    record = await deployer.wait("m")
    assert ended(record) == (State.LIVE, "cancelled by command")
    assert deployed.live_label() == "int8"
    assert works(deployed) == ()
    assert not deployed.heavy.held


async def test_after_a_restart_it_goes_on_waiting(deployed: World) -> None:
    deployer = deployed.deployer()
    await deployer.resume()
    deployed.reading = BUSY
    await deployer.again("command-2", ORDER)
    await turned(lambda: bool(works(deployed)))
    await deployer.stop()
    assert works(deployed) == ()
    again = deployed.deployer()
    await again.resume()
    await turned(lambda: bool(works(deployed)))
    deployed.reading = Reading()
    assert ended(await again.wait("m")) == (State.LIVE, "'better' serves")


@pytest.mark.parametrize(
    ("reading", "idle", "because"),
    [
        (Reading(others_cpu_share=0.2), Idle(), ""),
        (Reading(others_cpu_share=0.21), Idle(), "others take 21% of the processor, more than 20%"),
        (Reading(celsius=75), Idle(), ""),
        (Reading(celsius=80), Idle(), "it is 80 degrees Celsius warm, more than 75"),
        (Reading(on_mains=False), Idle(), "it runs on its battery"),
        (Reading(on_mains=False, battery_percent=90), Idle(), "it runs on its battery of 90 %"),
        (Reading(on_mains=False, battery_percent=90), Idle(battery_percent=80), ""),
        (Reading(on_mains=False, battery_percent=79), Idle(battery_percent=80),
         "it runs on its battery of 79 %"),
        (Reading(on_mains=False), Idle(battery_percent=80), "it runs on its battery"),
        (Reading(minute_of_day=22 * 60), Idle(window="22:00-06:00"), ""),
        (Reading(minute_of_day=6 * 60), Idle(window="22:00-06:00"),
         "it is not between 22:00 and 06:00"),
        (Reading(minute_of_day=60), Idle(window="01:00-02:30"), ""),
        (Reading(minute_of_day=150), Idle(window="01:00-02:30"),
         "it is not between 01:00 and 02:30"),
    ],
)  # fmt: skip
def test_what_counts_as_idle(reading: Reading, idle: Idle, because: str) -> None:
    assert idleness.busy(reading, idle) == because


def test_what_was_asked_for_comes_first() -> None:
    assert idleness.busy(Reading(), Idle(), wanted=True) == "something else is to be measured"


@given(first=st.integers(0, 1439), last=st.integers(0, 1439), minute=st.integers(0, 1439))
def test_a_window_and_the_one_that_is_left_make_a_day(first: int, last: int, minute: int) -> None:
    def idle(begin: int, end: int) -> bool:
        text = "-".join(f"{at // 60:02}:{at % 60:02}" for at in (begin, end))
        return not idleness.busy(Reading(minute_of_day=minute), Idle(window=text))

    assert idle(first, last) != idle(last, first) or first == last
