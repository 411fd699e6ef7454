"""Commands that come while a deployment is under way: new ones, cancel, remove."""

import asyncio

import pytest

from agent.control.states import WORKING, State
from agent.errors import Refused
from agent.protocol.commands import Deploy
from tests.control.orders import SMALL, deploy, ended
from tests.simulators.world import World, manifest


async def test_the_same_command_again_changes_nothing(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deploy(deployer)
    assert world.counts["compress"] == 1


async def test_a_new_command_takes_the_place_of_one_under_way(world: World) -> None:
    deployer = world.deployer()
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    world.before["compress"] = hang
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL, observe_minutes=0))
    await started.wait()
    del world.before["compress"]
    record = await deploy(deployer, 2, "command-2")
    assert ended(record) == (State.LIVE, "'int8' serves")
    assert record.live
    assert record.live.version == 2


ACTS = {
    State.VERIFYING: "fetch_manifest",
    State.FETCHING: "fetch_file",
    State.STARTING: "trial",
    State.COLLECTING: "capture",
    State.COMPRESSING: "compress",
    State.TRYING: "trial",
    State.SWITCHING: "load",
    State.OBSERVING: "shadow",
}


@pytest.mark.parametrize("state", ACTS)
async def test_cancel_ends_each_state(world: World, state: State) -> None:
    deployer = world.deployer()
    reached = asyncio.Event()

    async def hang() -> None:
        record = deployer.records()[0]
        if record.deployment and record.deployment.state is state:
            reached.set()
            await asyncio.Event().wait()

    world.before[ACTS[state]] = hang
    if state in {State.COLLECTING, State.TRYING}:
        came = state is State.TRYING
        world.published[1] = manifest(1, calibration=came, evaluation=came)
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL))
    await reached.wait()
    async with asyncio.timeout(2):
        await deployer.cancel("m")
        world.before.clear()
        record = await deployer.wait("m")
    serving = state not in {State.VERIFYING, State.FETCHING, State.STARTING}
    assert ended(record)[0] is (State.LIVE if serving else State.FAILED)
    assert ended(record)[1].startswith("cancelled by command")
    assert world.live_label() == ("model" if serving else "")


async def test_a_load_that_is_cancelled_halfway_does_not_leave_the_wrong_variant(
    world: World,
) -> None:
    deployer = world.deployer()
    reached = asyncio.Event()

    async def switch_then_hang() -> None:
        if deployer.records()[0].deployment.state is State.SWITCHING:  # type: ignore[union-attr]  # there is one
            # The server has switched, and its answer never comes.
            world.loaded["m"] = world.loaded["m"].model_copy(update={"path": "/x/int8.onnx"})
            reached.set()
            await asyncio.Event().wait()

    world.before["load"] = switch_then_hang
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL, observe_minutes=0))
    await reached.wait()
    await deployer.cancel("m")
    world.before.clear()
    await deployer.wait("m")
    assert world.live_label() == "model"


async def test_cancel_in_restoring_leaves_the_load_under_way_to_its_end(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    loads: list[asyncio.Event] = []

    async def wait() -> None:
        loads.append(asyncio.Event())
        await loads[-1].wait()

    world.before["load"] = wait
    await deployer.rollback("command-2", "m", None)
    while not loads:
        await asyncio.sleep(0)
    assert await deployer.cancel("m") == "it is on its way back already"
    loads[0].set()
    async with asyncio.timeout(2):
        record = await deployer.wait("m")
    assert ended(record)[0] is State.LIVE
    assert world.live_label() == "model"
    assert len(loads) == 1


def test_no_working_state_is_left_out_of_the_matrix() -> None:
    assert set(WORKING) - set(ACTS) == {State.RESTORING}


async def test_nothing_to_cancel_is_said(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    with pytest.raises(Refused, match="nothing is under way"):
        await deployer.cancel("m")


async def test_remove_forgets_everything(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deployer.remove("m")
    assert not world.loaded
    assert not deployer.records()
    assert not list((world.folder / "models").rglob("*.onnx"))
    again = world.deployer()
    await again.resume()
    assert not again.records()
