"""Whatever a step raises, the deployment ends and what served goes on serving."""

import asyncio
from collections.abc import Callable

import pytest

from agent.control.record import Record, Records
from agent.control.states import DEADLINE_S, State
from agent.errors import Corrupt, Refused, Unavailable
from agent.protocol.commands import Deploy
from compression.errors import BadModel, CannotRun
from tests.control.orders import SMALL, deploy, ended
from tests.simulators.world import World


async def test_what_is_not_there_yet_is_waited_for(world: World) -> None:
    late = world.published.pop(1)
    deployer = world.deployer()
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL, observe_minutes=0))
    while world.counts.get("fetch_manifest", 0) < 3:
        await asyncio.sleep(0)
    world.published[1] = late
    assert ended(await deployer.wait("m"))[0] is State.LIVE
    assert [m for k, _, m in world.events if "waiting" in m] == [
        "waiting: cannot find m@1: not published"
    ]


@pytest.mark.parametrize(
    ("act", "error", "end"),
    [
        ("fetch_file", Corrupt("cannot use a chunk"), State.FAILED),
        ("fetch_manifest", Refused("cannot trust the envelope"), State.REFUSED),
        ("trial", BadModel("cannot load model.onnx: no ONNX"), State.REFUSED),
        ("trial", CannotRun("cannot run here: killed by SIGILL"), State.FAILED),
        ("load", Refused("cannot load m: wrong answers"), State.REFUSED),
        ("trial", RuntimeError("a bug"), State.FAILED),
    ],
)
async def test_what_goes_wrong_ends_and_changes_nothing(
    world: World, act: str, error: Exception, end: State
) -> None:
    deployer = world.deployer()
    await deploy(deployer)

    def fail() -> None:
        if world.counts["fetch_manifest"] == 2:
            raise error

    world.before[act] = fail
    if act == "load":  # restoring may load; only the new version's is bad
        world.before[act] = _fail_once(error)
    record = await deploy(deployer, 2, "command-2")
    assert ended(record)[0] is end
    assert str(error) in ended(record)[1]
    assert world.live_label() == "int8"
    assert record.live
    assert record.live.version == 1


def _fail_once(error: Exception) -> Callable[[], None]:
    errors = [error]

    def fail() -> None:
        if errors:
            raise errors.pop()

    return fail


async def test_a_compression_that_dies_leaves_the_original_live(world: World) -> None:
    world.before["compress"] = _fail_once(CannotRun("cannot compress: killed by SIGKILL"))
    state, message = ended(await deploy(world.deployer()))
    assert (state, message) == (State.LIVE, "cannot compress: killed by SIGKILL")
    assert world.live_label() == "model"


async def test_a_full_disk_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(world.folder / "records")
    save, full = records.save, [3]

    def save_when_there_is_room(record: Record) -> None:
        if full[0] and record.deployment and record.deployment.state is State.STARTING:
            full[0] -= 1
            raise Unavailable("cannot keep the record of m: no space left")
        save(record)

    monkeypatch.setattr(records, "save", save_when_there_is_room)
    assert ended(await deploy(world.deployer(records))) == (State.LIVE, "'int8' serves")
    assert full == [0]
    assert [m for k, _, m in world.events if "waiting" in m] == [
        "waiting: cannot keep the record of m: no space left"
    ]


async def test_a_state_that_waits_too_long_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEADLINE_S, State.VERIFYING, 0.05)

    def never() -> None:
        raise Unavailable("cannot find it")

    world.before["fetch_manifest"] = never
    state, message = ended(await deploy(world.deployer()))
    assert (state, message) == (State.FAILED, "cannot finish verifying in 0 s")


async def test_a_variant_that_the_server_gave_up_is_replaced_by_what_served_before(
    world: World,
) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deployer.lost("m", "killed by SIGSEGV; expelled")
    state, message = ended(await deployer.wait("m"))
    assert world.live_label() == "model"
    assert state is State.LIVE
    assert message == (
        "fell back: killed by SIGSEGV; expelled; 'original' of version 1 serves again"
    )
    await deployer.lost("m", "killed by SIGSEGV; expelled")
    assert "no variant is left" in world.events[-1][2]


async def test_what_had_to_give_way_in_vain_serves_again_before_anything_else(
    world: World,
) -> None:
    deployer = world.deployer()
    await deploy(deployer)

    def neither_loads() -> None:
        world.before["load"] = _fail_once(Unavailable("cannot load m: it needs about 20 MiB"))
        del world.loaded["m"]  # the one was taken out for the other, and memory went meanwhile
        raise Unavailable("cannot load m: it needs about 900 MiB")

    world.before["load"] = neither_loads
    record = await deploy(deployer, 2, "command-2")
    assert ended(record)[0] is State.REFUSED
    assert "what served could not be put back at once" in ended(record)[1]
    assert world.live_label() == "int8"
    assert record.live
    assert record.live.version == 1


async def test_a_command_that_comes_while_a_fallback_loads_is_not_forgotten(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        del world.before["load"]
        loading.set()
        await go_on.wait()

    world.before["load"] = slowly
    falling_back = asyncio.create_task(deployer.lost("m", "killed by SIGSEGV; expelled"))
    await loading.wait()
    await deployer.start("command-2", Deploy(model="m", version=2, budget=SMALL, observe_minutes=0))
    world.before["fetch_manifest"] = asyncio.Event().wait
    go_on.set()
    await falling_back
    (record,) = deployer.records()
    assert record.deployment
    assert record.deployment.id == "command-2"
    await deployer.stop()
