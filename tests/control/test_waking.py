"""What serves after a start, and what is swept from the disk."""

import pytest

from agent.control.record import Records
from agent.errors import Refused, Unavailable
from tests.control.orders import deploy
from tests.simulators.world import World, manifest


async def test_what_cannot_be_loaded_at_boot_for_want_of_memory_is_loaded_later(
    world: World,
) -> None:
    await deploy(world.deployer())
    world.loaded.clear()
    short = [5]

    def no_memory() -> None:
        if short[0]:
            short[0] -= 1
            raise Unavailable("cannot load m: no memory is left for it")

    world.before["load"] = no_memory
    again = world.deployer()
    assert len(await again.resume()) == 2
    with pytest.raises(Refused, match="nothing is under way"):
        await again.cancel("m")
    await again.wait("m")
    assert world.live_label() == "int8"
    assert world.events[-1] == ("swapped", "live", "'int8' serves again")


async def test_a_model_that_was_half_removed_is_swept_away_at_the_next_start(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    Records(world.folder / "records").remove("m")  # and then the power went
    assert await world.deployer().resume() == []
    assert not list((world.folder / "models").rglob("*.onnx"))


async def test_versions_that_are_no_way_back_are_deleted(world: World) -> None:
    deployer = world.deployer()
    world.published[3] = manifest(3)
    for version in (1, 2, 3):
        await deploy(deployer, version, f"command-{version}")
    kept = {path.name for path in (world.folder / "models" / "m").iterdir()}
    assert "3" in kept
    assert "1" not in kept
