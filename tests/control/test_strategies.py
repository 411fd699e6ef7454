"""What each strategy makes of a model, and what ends live, in a small true world."""

import pytest

from agent.control.states import State
from agent.errors import Refused
from compression.errors import CannotRun
from compression.job import Budget
from tests.control.orders import deploy, ended
from tests.simulators.world import World, manifest, measured


async def test_the_original_goes_live_first_and_then_the_better_variant(world: World) -> None:
    record = await deploy(world.deployer())
    assert ended(record) == (State.LIVE, "'int8' serves")
    assert world.live_label() == "int8"
    swaps = [message for kind, _, message in world.events if kind == "swapped"]
    assert swaps == ["'original' serves", "'int8' serves"]
    states = [state for kind, state, _ in world.events if kind == "state"]
    assert states == ["verifying", "fetching", "starting", "compressing", "trying", "switching",
                      "live"]  # fmt: skip


async def test_the_manifests_agreement_binds_where_the_command_is_silent(world: World) -> None:
    record = await deploy(world.deployer())
    assert record.deployment
    assert record.deployment.effective_budget
    assert record.deployment.effective_budget.min_agreement == 0.98
    assert record.deployment.effective_budget.threads == 1


async def test_what_fits_nothing_leaves_the_original_live_with_the_reason(world: World) -> None:
    world.rungs = {"tiny": measured(size_mib=0.5, agreement=0.7)}
    state, message = ended(await deploy(world.deployer()))
    assert state is State.LIVE
    assert message.startswith("cannot fit m@1 into its budget: nearest is 'tiny': agreement 0.700")
    assert world.live_label() == "model"


async def test_compress_first_that_fits_nothing_is_refused_and_serves_what_it_did(
    world: World,
) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.rungs = {}
    record = await deploy(deployer, 2, "command-2", strategy="compress-first")
    assert ended(record)[0] is State.REFUSED
    assert world.live_label() == "int8"
    assert record.live
    assert record.live.version == 1


async def test_as_is_never_compresses(world: World) -> None:
    record = await deploy(world.deployer(), budget=Budget(), strategy="as-is")
    assert ended(record) == (State.LIVE, "the original serves, as was asked")
    assert "compress" not in world.counts


async def test_as_is_over_its_budget_is_refused_with_the_figures(world: World) -> None:
    record = await deploy(world.deployer(), strategy="as-is")
    assert ended(record) == (
        State.REFUSED,
        "cannot admit m@1: size 3.00 MiB over budget 1.00 MiB",
    )
    assert not world.loaded


async def test_an_original_that_does_not_fit_memory_waits_for_its_variant(world: World) -> None:
    world.original = measured(peak_memory_mib=900)
    record = await deploy(world.deployer())
    assert ended(record)[0] is State.LIVE
    assert [m for kind, _, m in world.events if kind == "swapped"] == ["'int8' serves"]


async def test_without_calibration_inputs_the_original_serves_and_says_why(world: World) -> None:
    world.published[1] = manifest(1, calibration=False)
    state, message = ended(await deploy(world.deployer()))
    assert state is State.LIVE
    assert "no calibration inputs" in message
    assert world.live_label() == "model"


async def test_a_model_too_large_to_load_unmeasured_is_not_loaded(world: World) -> None:
    world.published[1] = manifest(1, calibration=False)
    world.available_mib = 1e-6
    state, message = ended(await deploy(world.deployer()))
    assert state is State.REFUSED
    assert not world.loaded
    assert "no calibration inputs" in message


async def test_admission_turns_down_what_the_evaluation_set_shows(world: World) -> None:
    world.published[1] = manifest(1, evaluation=True)
    world.rungs = {
        "first": measured(size_mib=0.9, agreement=0.999),
        "second": measured(size_mib=0.8, agreement=0.99),
    }
    world.evaluated = {"first": measured(size_mib=0.9, agreement=0.6)}
    assert ended(await deploy(world.deployer())) == (State.LIVE, "'second' serves")


async def test_when_every_variant_is_turned_down_the_original_stays(world: World) -> None:
    world.published[1] = manifest(1, evaluation=True)
    world.evaluated = {"int8": measured(size_mib=0.9, agreement=0.6)}
    state, _ = ended(await deploy(world.deployer()))
    assert state is State.LIVE
    assert world.live_label() == "model"


async def test_an_original_that_meets_the_budget_stays(world: World) -> None:
    record = await deploy(world.deployer(), budget=Budget(size_mib=5))
    assert world.live_label() == "model"
    assert record.live
    assert record.live.meets_budget is True
    assert ended(record)[0] is State.LIVE


async def test_an_older_version_is_refused_at_once(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer, 2)
    with pytest.raises(Refused, match="older than 2"):
        await deploy(deployer, 1, "command-2")


async def test_a_version_published_again_with_another_model_is_refused(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.published[1] = manifest(1, model=b"other")
    record = await deploy(deployer, 1, "command-2")
    assert "a changed model needs a new version" in ended(record)[1]
    assert world.live_label() == "int8"


async def test_a_version_for_newer_agents_is_refused(world: World) -> None:
    world.published[1] = manifest(1, least_agent_version="99.1")
    state, message = ended(await deploy(world.deployer()))
    assert state is State.REFUSED
    assert "it needs agent 99.1, this one is" in message


async def test_an_original_that_memory_cannot_hold_twice_is_judged_by_its_forecast(
    world: World,
) -> None:
    def memory_ends() -> None:
        world.available_mib = 1e-6
        raise CannotRun("cannot run model.onnx here: its process was killed by SIGKILL")

    deployer = world.deployer()
    await deploy(deployer)
    world.before["trial"] = memory_ends
    record = await deploy(deployer, 2, "command-2", strategy="as-is", budget=Budget())
    assert ended(record) == (State.LIVE, "the original serves, as was asked")
    assert record.live
    assert record.live.measurement is None
    told = [message for kind, _, message in world.events if kind == "progress"]
    assert any(message.startswith("not measured, for want of memory") for message in told)
    assert world.loaded["m"].needs_mib == pytest.approx(9 * 3 / 2**20), "three times its file"


async def test_what_fits_only_in_the_place_of_what_serves_is_admitted(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.available_mib = 5.0  # each takes 20: one of them fits, but not two
    record = await deploy(deployer, 2, "command-2")
    assert ended(record)[0] is State.LIVE
    assert record.live is not None
    assert (record.live.version, record.live.label) == (2, "int8")
    assert world.loaded["m"].needs_mib == 20.0
