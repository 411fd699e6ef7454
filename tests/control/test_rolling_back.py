"""Rollback by command and after crashes: what served before serves again, without any network."""

import asyncio

import pytest

from agent.control import ways_back
from agent.control.record import Record, Variant
from agent.control.states import State
from agent.errors import Refused
from compression.job import Runtime
from tests.control.orders import deploy, ended
from tests.simulators.world import World, manifest


async def test_the_command_goes_back_before_the_last_deployment(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deploy(deployer, 2, "command-2")
    world.published.clear()  # no network
    answer = await deployer.rollback("command-3", "m", None)
    assert answer == "rolling back to 'int8' of version 1, by command"
    record = await deployer.wait("m")
    assert ended(record) == (
        State.LIVE,
        "rolling back to 'int8' of version 1, by command; 'int8' of version 1 serves again",
    )
    assert record.live is not None
    assert record.live.version == 1
    assert world.loaded["m"].version == 1


async def test_going_back_twice_ends_where_it_began(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deploy(deployer, 2, "command-2")
    for number, version in ((3, 1), (4, 2), (5, 1)):
        await deployer.rollback(f"command-{number}", "m", None)
        record = await deployer.wait("m")
        assert record.live is not None
        assert record.live.version == version


async def test_of_a_first_deployment_the_way_back_is_its_original(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deployer.rollback("command-2", "m", None)
    await deployer.wait("m")
    assert world.live_label() == "model"


async def test_what_is_not_kept_is_refused_by_name(world: World) -> None:
    deployer = world.deployer()
    with pytest.raises(Refused, match="it is not deployed here"):
        await deployer.rollback("command-1", "m", None)
    await deploy(deployer)
    with pytest.raises(Refused, match=r"to version 7: 'original' of version 1 is kept"):
        await deployer.rollback("command-2", "m", 7)


async def test_a_way_back_that_is_damaged_leaves_what_serves_and_says_so(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deploy(deployer, 2, "command-2")
    for path in (world.folder / "models" / "m" / "1").rglob("int8.onnx"):
        path.write_bytes(b"bad")
    await deployer.rollback("command-3", "m", None)
    state, message = ended(await deployer.wait("m"))
    assert state is State.FAILED
    assert message.endswith("because 'int8' cannot")
    assert world.loaded["m"].version == 2


async def test_a_rollback_stops_a_deployment_under_way(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    reached: list[str] = []

    async def roll_back() -> None:
        if not reached:
            reached.append("compressing")
            commands.append(asyncio.create_task(deployer.rollback("command-3", "m", None)))
            await asyncio.Event().wait()

    commands: list[asyncio.Task[str]] = []
    world.before["compress"] = roll_back
    with pytest.raises(asyncio.CancelledError):
        await deploy(deployer, 2, "command-2")
    assert "was stopped for it" in await commands[0]
    record = await deployer.wait("m")
    assert record.live is not None
    assert (record.live.version, record.live.label) == (1, "int8")


async def test_a_model_that_crashes_while_a_better_one_is_made_is_replaced_and_the_work_goes_on(
    world: World,
) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    crashing: list[asyncio.Task[None]] = []

    async def crash() -> None:
        del world.before["compress"]
        crashing.append(asyncio.create_task(deployer.lost("m", "killed by SIGFPE; expelled")))
        await asyncio.Event().wait()

    world.before["compress"] = crash
    with pytest.raises(asyncio.CancelledError):
        await deploy(deployer, 2, "command-2")
    await crashing[0]
    record = await deployer.wait("m")
    labels = [message for kind, _, message in world.events if kind == "swapped"]
    assert labels[-2:] == ["'int8' serves", "'int8' serves"]  # of version 1, then of version 2
    assert record.live is not None
    assert record.live.version == 2
    assert len(record.distrusted) == 1


def variant(version: int, label: str) -> Variant:
    digest = f"{version}{label}".encode().hex().ljust(64, "0")
    return Variant(version=version, label=label, path="p", sha256=digest, runtime=Runtime())


ONE, TWO, THREE = variant(1, "int8"), variant(2, "original"), variant(2, "int8")


def test_the_ways_back_are_the_latest_first_and_never_what_failed() -> None:
    record = Record(model="m", live=THREE, previous=TWO, before=ONE)
    assert ways_back.others(record) == (TWO, ONE)
    assert ways_back.target(record, None) == ONE
    assert ways_back.target(record, 2) == TWO
    assert ways_back.pinned(record) == {1, 2}
    fallen = ways_back.distrust(record.model_copy(update={"live": TWO, "previous": THREE}))
    assert ways_back.fallen(fallen)
    assert ways_back.others(fallen) == (THREE, ONE)
    assert TWO not in ways_back.order(fallen)


def test_what_failed_pins_no_version() -> None:
    record = Record(model="m", live=TWO, previous=ONE, distrusted=(ONE.sha256,))
    assert ways_back.pinned(record) == {2}


async def test_only_the_ways_back_stay_on_the_disk(world: World) -> None:
    deployer = world.deployer()
    world.published[3] = manifest(3)
    for version in (1, 2, 3):
        await deploy(deployer, version, f"command-{version}")
    kept = {path.name for path in (world.folder / "models" / "m").iterdir()}
    assert kept == {"2", "3"}
