"""Another budget for what serves, and variants made anew of it: what changes, and what does not."""

from pathlib import Path

import pytest

from agent.control import admission
from agent.control.deployer import Deployer
from agent.control.record import Record
from agent.control.states import State
from agent.errors import Refused
from agent.protocol.capturing import SUFFIX
from agent.protocol.commands import Deploy, Recompress, SetBudget
from compression.job import Budget
from tests.control.orders import SMALL, deploy, ended
from tests.simulators.world import World, manifest, measured


async def set_budget(deployer: Deployer, budget: Budget, command: str = "command-2") -> Record:
    await deployer.again(command, SetBudget(model="m", budget=budget, observe_minutes=0))
    return await deployer.wait("m")


async def recompress(deployer: Deployer, command: str = "command-2", **order: object) -> Record:
    fields = {"model": "m", "observe_minutes": 0, "collect_inputs": 0, "when": "now"} | order
    await deployer.again(command, Recompress.model_validate(fields))
    return await deployer.wait("m")


def swaps(world: World) -> list[str]:
    return [message for kind, _, message in world.events if kind == "swapped"]


async def test_a_rung_that_is_here_takes_over_without_a_worker_or_a_network(world: World) -> None:
    world.rungs["tiny"] = measured(size_mib=0.5, agreement=0.99)
    deployer = world.deployer()
    await deploy(deployer)
    world.published.clear()
    del world.events[:]
    record = await set_budget(deployer, Budget(size_mib=0.6))
    assert ended(record) == (State.LIVE, "'tiny' serves")
    assert swaps(world) == ["'tiny' serves"], "not by way of the original"
    assert world.counts["compress"] == 1
    assert record.deployment
    assert record.deployment.effective_budget == Budget(
        size_mib=0.6, min_agreement=0.98, threads=1, peak_memory_mib=250
    )


async def test_where_none_is_here_more_are_made(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs["tiny"] = measured(size_mib=0.5, agreement=0.99)
    assert ended(await set_budget(deployer, Budget(size_mib=0.6))) == (State.LIVE, "'tiny' serves")
    assert world.jobs[-1].budget.size_mib == 0.6


async def test_a_budget_that_nothing_keeps_leaves_what_serves_and_says_so(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    record = await set_budget(deployer, Budget(size_mib=0.1))
    state, message = ended(record)
    assert state is State.LIVE
    assert message.startswith("cannot fit m@1 into its budget: nearest is '")
    assert record.live
    assert (record.live.label, record.live.meets_budget) == ("int8", False)


async def test_a_wider_budget_brings_the_original_back(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    assert ended(await set_budget(deployer, Budget(size_mib=9)))[1] == "'original' serves"
    assert world.live_label() == "model"


async def test_the_same_command_again_changes_nothing(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    order = SetBudget(model="m", budget=Budget(size_mib=9), observe_minutes=0)
    await deployer.again("command-2", order)
    before = await deployer.wait("m")
    assert await deployer.again("command-2", order) == "accepted"
    assert await deployer.wait("m") == before


@pytest.mark.parametrize("order", [SetBudget(model="m", budget=SMALL), Recompress(model="m")])
async def test_what_is_not_here_or_is_on_its_way_is_refused(
    world: World, order: SetBudget | Recompress
) -> None:
    deployer = world.deployer()
    with pytest.raises(Refused, match="m: nothing of it serves here"):
        await deployer.again("command-0", order)
    await deploy(deployer)
    world.published.pop(2)
    await deployer.start("command-2", Deploy(model="m", version=2))
    with pytest.raises(Refused, match=r"m: version 2 is on its way \(verifying\)"):
        await deployer.again("command-3", order)
    await deployer.stop()


async def test_a_better_variant_takes_over_and_one_that_is_none_does_not(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs = {"other": measured(size_mib=0.9, agreement=0.995)}
    state, message = ended(await recompress(deployer))
    assert state is State.LIVE
    assert message == (
        "cannot better m@1: 'other' against 'int8', which serves: agrees at 0.995, what serves at "
        "0.995; latency x 1.00, memory x 1.00, size x 1.00"
    )
    world.rungs = {"better": measured(size_mib=0.9, agreement=0.999)}
    record = await recompress(deployer, "command-3", recover_minutes=5)
    assert ended(record) == (State.LIVE, "'better' serves")
    assert world.jobs[-1].recover_minutes == 5
    assert world.jobs[-1].budget.size_mib == SMALL.size_mib


async def test_what_serves_stays_on_the_disk_whatever_the_worker_makes(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs = {"worse": measured(size_mib=0.9, agreement=0.981)}
    await recompress(deployer)
    assert world.jobs[-1].keep == ("int8.onnx",)
    again = World(world.folder, published=world.published, rungs=world.rungs)
    assert await again.deployer().resume() == []
    assert again.live_label() == "int8"


async def test_live_inputs_calibrate_rather_than_those_that_came(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs = {"better": measured(size_mib=0.9, agreement=0.999)}
    record = await recompress(deployer, collect_inputs=50, collect_minutes=1)
    assert ended(record) == (State.LIVE, "'better' serves")
    assert Path(world.jobs[-1].calibration_path or "").name == "m-collected.npz"
    assert len(list(world.folder.rglob(f"*{SUFFIX}"))) == 50


async def test_where_too_few_came_live_those_that_came_with_it_calibrate(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs = {"better": measured(size_mib=0.9, agreement=0.999)}
    world.traffic = 0
    await recompress(deployer, collect_inputs=50, collect_minutes=1, collect_hours=0.1)
    assert world.live_label() == "better"
    assert Path(world.jobs[-1].calibration_path or "").name == "calibration.npz"


async def test_a_budget_for_what_never_had_inputs_waits_for_them(world: World) -> None:
    world.published = {1: manifest(1, calibration=False)}
    deployer = world.deployer()
    world.traffic = 0
    await deploy(deployer, collect_inputs=50, collect_minutes=1, collect_hours=0.1)
    assert world.live_label() == "model"
    world.traffic = 40
    record = await set_budget(deployer, Budget(size_mib=0.95))
    assert ended(record) == (State.LIVE, "'int8' serves")


def test_what_is_better_gains_beyond_noise_and_loses_nothing() -> None:
    serves = measured(agreement=0.98)
    same = serves.agreement.model_copy(update={"low": 0.97, "high": 0.99})
    serves = serves.model_copy(update={"agreement": same})

    def new(value: float, **changes: object) -> str:
        agreement = same.model_copy(update={"value": value})
        made = serves.model_copy(update={"agreement": agreement, **changes})
        return admission.no_better(made, serves)

    assert new(0.995) == ""
    assert new(0.995, size_mib=serves.size_mib * 2) == "", "the budget allows it"
    assert new(0.975, size_mib=serves.size_mib / 2) == ""
    assert "latency x 1.10" in new(0.98, size_mib=serves.size_mib / 2,
                                   latency_ratio=serves.latency_ratio * 1.1)  # fmt: skip
    assert new(0.985) == "agrees at 0.985, what serves at 0.980; latency x 1.00, memory x 1.00, " \
                         "size x 1.00"  # fmt: skip
    assert new(0.96, latency_ratio=0.1) == "agrees less: 0.960, what serves 0.980 (from 0.970)"
