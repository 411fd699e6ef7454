"""COLLECTING: live inputs where none came, their number, their deadline and their deletion."""

import asyncio
from pathlib import Path

import pytest

from agent.control import collecting
from agent.control.record import Deployment
from agent.control.states import State
from agent.protocol.capturing import SUFFIX, CaptureStatus
from compression.job import Budget
from tests.control.orders import deploy, ended
from tests.simulators.world import World, manifest

COLLECT = {"collect_inputs": 100, "collect_minutes": 5.0, "collect_hours": 1.0}


@pytest.fixture
def bare(world: World) -> World:
    """A fleet that published no inputs."""
    world.published = {1: manifest(1, calibration=False), 2: manifest(2, calibration=False)}
    return world


def samples(world: World) -> list[Path]:
    return sorted((world.folder / "models").rglob(f"*{SUFFIX}"))


async def test_live_inputs_calibrate_and_verify_where_none_came(bare: World) -> None:
    record = await deploy(bare.deployer(), **COLLECT)
    assert ended(record) == (State.LIVE, "'int8' serves")
    assert record.live is not None
    assert record.live.verified
    states = [state for kind, state, _ in bare.events if kind == "state"]
    assert states == ["verifying", "fetching", "starting", "collecting", "compressing", "trying",
                      "switching", "live"]  # fmt: skip
    (job,) = bare.jobs
    assert job.calibration_path is not None
    assert not Path(job.calibration_path).exists(), "the gathered file is only for the job"
    assert len(samples(bare)) == 100


async def test_they_are_spread_over_the_minutes_that_were_asked_for(bare: World) -> None:
    bare.traffic = 1000
    await deploy(bare.deployer(), **COLLECT)
    progress = [f for f in bare.figures if f.get("stage") == "collect"]
    assert len(progress) == 10  # of 30 s each
    assert progress[0]["kept"] == 100
    assert progress[0]["hours_left"] == pytest.approx(1 - 30 / 3600)


async def test_too_few_by_the_deadline_leave_the_original_and_say_how_many(bare: World) -> None:
    bare.traffic, bare.look_s = 1, 600.0
    record = await deploy(bare.deployer(), **COLLECT)
    assert ended(record) == (
        State.LIVE,
        "the original serves; 6 live inputs came in 1.0 h, at least 24 are needed",
    )
    assert "compress" not in bare.counts


async def test_fewer_than_wanted_do_at_the_deadline(bare: World) -> None:
    bare.traffic, bare.look_s = 10, 600.0
    assert ended(await deploy(bare.deployer(), **COLLECT)) == (State.LIVE, "'int8' serves")
    assert len(samples(bare)) == 60


async def test_what_was_collected_serves_the_next_deployment_of_that_version(bare: World) -> None:
    deployer = bare.deployer()
    await deploy(deployer, **COLLECT)
    bare.traffic = 0
    record = await deploy(deployer, 1, "command-2", budget=Budget(size_mib=0.95), **COLLECT)
    assert ended(record)[0] is State.LIVE
    assert len(bare.jobs) == 2


async def test_a_command_deletes_them(bare: World) -> None:
    deployer = bare.deployer()
    await deploy(deployer, **COLLECT)
    assert await deployer.forget_inputs("m") == "100 inputs of m are deleted"
    assert not samples(bare)
    assert bare.live_label() == "int8"


async def test_deleting_them_ends_the_work_on_them(bare: World) -> None:
    deployer = bare.deployer()
    forgetting: list[asyncio.Task[str]] = []

    async def forget() -> None:
        if not forgetting:
            forgetting.append(asyncio.create_task(deployer.forget_inputs("m")))
            await asyncio.Event().wait()

    bare.before["compress"] = forget
    with pytest.raises(asyncio.CancelledError):
        await deploy(deployer, **COLLECT)
    assert await forgetting[0] == "100 inputs of m are deleted"
    record = await deployer.wait("m")
    assert ended(record) == (State.LIVE, "cancelled by command")
    assert not samples(bare)


async def test_a_version_whose_original_cannot_fit_collects_from_its_predecessor(
    bare: World,
) -> None:
    deployer = bare.deployer()
    await deploy(deployer, **COLLECT)
    record = await deploy(deployer, 2, "command-2", strategy="compress-first", **COLLECT)
    assert ended(record) == (State.LIVE, "'int8' serves")
    assert record.live is not None
    assert record.live.version == 2


async def test_nothing_that_serves_brings_nothing(bare: World) -> None:
    record = await deploy(bare.deployer(), strategy="compress-first", **COLLECT)
    assert ended(record)[0] is State.REFUSED
    assert "no calibration inputs came" in ended(record)[1]
    assert "capture" not in bare.counts


async def test_samples_that_the_disk_lost_are_collected_again(bare: World) -> None:
    deployer = bare.deployer()

    def lose() -> None:
        del bare.before["gather"]
        for path in samples(bare)[20:]:
            path.unlink()

    bare.before["gather"] = lose
    record = await deploy(deployer, **COLLECT)
    assert ended(record)[0] is State.LIVE
    assert "no calibration inputs" in ended(record)[1] or bare.live_label() == "int8"


@pytest.mark.parametrize(
    ("kept", "elapsed_s", "over"),
    [(100, 299, False), (100, 300, True), (99, 3599, False), (0, 3600, True)],
)
def test_it_is_over_when_enough_came_in_time_or_the_time_is_up(
    kept: int, elapsed_s: float, over: bool
) -> None:
    deployment = Deployment(
        id="c", version=1, strategy="improve", budget=Budget(), minutes=1, **COLLECT
    )
    assert collecting.over(deployment, CaptureStatus(kept=kept), elapsed_s) is over
