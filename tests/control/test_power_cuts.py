"""Power cuts are parameters: before and after each save and each act, then the same end."""

from pathlib import Path

import pytest

from agent.control.record import Record, Records
from agent.control.states import State
from agent.protocol.commands import Deploy
from compression.job import Budget
from tests.simulators.world import Killed, World, manifest, measured


class CutRecords(Records):
    """Records whose process ends at the n-th save, before or after it is on the disk."""

    def __init__(self, folder: Path, *, at: int, after: bool) -> None:
        super().__init__(folder)
        self.left, self.after = at, after

    def save(self, record: Record) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        super().save(record)
        if self.left == 0:
            raise Killed


def small_world(folder: Path) -> World:
    world = World(folder)
    world.published = {1: manifest(1, evaluation=True)}
    world.rungs = {"int8": measured(size_mib=0.9, agreement=0.995)}
    return world


async def start(world: World, records: Records) -> None:
    deployer = world.deployer(records)
    try:
        await deployer.start("command-1", Deploy(model="m", version=1, budget=Budget(size_mib=1)))
        await deployer.wait("m")
    except Killed:
        pass


async def finish(world: World) -> Record:
    """The next boot: the server is new too. The controller sends its command again."""
    world.loaded.clear()
    world.before.clear()
    deployer = world.deployer()
    troubles = await deployer.resume()
    assert not troubles
    order = Deploy(model="m", version=1, budget=Budget(size_mib=1))
    await deployer.start("command-1", order)
    return await deployer.wait("m")


@pytest.mark.parametrize("after", [False, True], ids=["before-save", "after-save"])
@pytest.mark.parametrize("at", range(1, 8))
async def test_a_cut_at_any_save_ends_the_same(tmp_path: Path, at: int, after: bool) -> None:
    world = small_world(tmp_path)
    await start(world, CutRecords(tmp_path / "records", at=at, after=after))
    record = await finish(world)
    assert record.deployment
    assert record.deployment.state is State.LIVE
    assert world.live_label() == "int8"


@pytest.mark.parametrize("act", ["fetch_manifest", "fetch_file", "trial", "compress", "load"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_cut_in_any_act_ends_the_same(tmp_path: Path, act: str, nth: int) -> None:
    world = small_world(tmp_path)

    def cut() -> None:
        if world.counts[act] == nth:
            raise Killed

    world.before[act] = cut
    await start(world, Records(tmp_path / "records"))
    record = await finish(world)
    assert record.deployment
    assert record.deployment.state is State.LIVE
    assert world.live_label() == "int8"


async def test_a_damaged_record_is_set_aside_and_the_rest_comes_back(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    await start(world, Records(tmp_path / "records"))
    (tmp_path / "records" / "other.json").write_bytes(b'{"model": "other", "liv')
    world.loaded.clear()
    deployer = world.deployer()
    await deployer.resume()
    assert world.live_label() == "int8"
    assert [record.model for record in deployer.records()] == ["m"]
    assert (tmp_path / "records" / "other.damaged").exists()


async def test_where_the_variant_is_damaged_the_original_serves_and_it_is_told(
    tmp_path: Path,
) -> None:
    world = small_world(tmp_path)
    await start(world, Records(tmp_path / "records"))
    for path in tmp_path.rglob("int8.onnx"):
        path.write_bytes(b"bad")
    world.loaded.clear()
    troubles = await world.deployer().resume()
    assert len(troubles) == 1
    assert "cannot bring back m (int8)" in troubles[0]
    assert world.live_label() == "model"
