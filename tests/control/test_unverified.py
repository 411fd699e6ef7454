"""Without calibration inputs nothing verifies a variant: it serves only where that was allowed."""

from pathlib import Path

import pytest

from agent.control import admission
from agent.control.announcer import live_models
from agent.control.record import Record
from agent.control.states import State
from agent.protocol.commands import Command, Deploy, parse
from compression.job import Budget
from tests.control.orders import deploy, ended
from tests.simulators.world import World, manifest, measured


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.published = {1: manifest(1, calibration=False)}
    made.rungs = {"int8": measured(size_mib=0.9, agreement=0.995)}
    return made


async def test_by_default_the_original_serves_and_nothing_is_compressed(world: World) -> None:
    record = await deploy(world.deployer())
    assert ended(record) == (
        State.LIVE,
        "the original serves; no calibration inputs came with it",
    )
    assert world.live_label() == "model"
    assert "compress" not in world.counts


async def test_where_allowed_the_variant_serves_and_says_that_it_is_unverified(
    world: World,
) -> None:
    record = await deploy(world.deployer(), allow_unverified=True)
    assert ended(record) == (
        State.LIVE,
        "'int8' serves, unverified, as was allowed: no real inputs judged it",
    )
    (job,) = world.jobs
    assert (job.calibration_path, job.evaluation_path) == (None, None)
    (live,) = live_models([record], served=lambda _: None)
    assert (live.variant, live.verified) == ("int8", False)


async def test_an_evaluation_set_verifies_what_was_made_without_inputs(world: World) -> None:
    world.published[1] = manifest(1, calibration=False, evaluation=True)
    record = await deploy(world.deployer(), allow_unverified=True)
    assert ended(record) == (State.LIVE, "'int8' serves")
    assert record.live is not None
    assert record.live.verified


async def test_an_evaluation_set_turns_down_what_was_made_without_inputs(world: World) -> None:
    world.published[1] = manifest(1, calibration=False, evaluation=True)
    world.evaluated = {"int8": measured(size_mib=0.9, agreement=0.4)}
    record = await deploy(world.deployer(), allow_unverified=True)
    assert ended(record)[0] is State.LIVE
    assert world.live_label() == "model"


async def test_an_unverified_rung_on_the_device_is_not_chosen_and_the_reason_is_told(
    world: World,
) -> None:
    # A ladder of an earlier deployment that allowed it, or one that was copied here.
    world.published[1] = manifest(1)
    before = world._compress

    async def unverified(job, **calls):  # type: ignore[no-untyped-def]  # stands in for _compress
        return await before(job.model_copy(update={"calibration_path": None}), **calls)

    world._compress = unverified  # type: ignore[method-assign]  # the world answers so here
    state, message = ended(await deploy(world.deployer()))
    assert state is State.LIVE
    assert world.live_label() == "model"
    assert message == (
        "cannot fit m@1 into its budget: 'int8' would meet it, but is unverified: no real inputs "
        "have shown how alike it answers; publish calibration inputs, or deploy with "
        "allow_unverified"
    )


async def test_what_was_allowed_survives_a_restart(world: World) -> None:
    deployer = world.deployer()
    record = await deploy(deployer, allow_unverified=True)
    again = world.deployer()
    await again.resume()
    assert again.records() == (record,)
    assert record.deployment is not None
    assert record.deployment.allow_unverified


def test_the_command_carries_the_permission_and_records_of_before_read_as_without() -> None:
    body = Deploy(model="m", version=1, budget=Budget(), allow_unverified=True)
    command = Command(id="command-1", audience="device/a", issued_at_s=0, expires_at_s=1, body=body)
    assert parse(command.to_json()).body == body
    old = (
        '{"model":"m","deployment":{"id":"c","version":1,"strategy":"improve",'
        '"budget":{},"minutes":1}}'
    )
    deployment = Record.model_validate_json(old).deployment
    assert deployment is not None
    assert not deployment.allow_unverified


@pytest.mark.parametrize("calibration", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_compressing_is_in_vain_only_without_inputs_and_without_permission(
    calibration: bool, allowed: bool
) -> None:
    in_vain = admission.needs_inputs(calibration=calibration, allow_unverified=allowed)
    assert in_vain is not (calibration or allowed)
