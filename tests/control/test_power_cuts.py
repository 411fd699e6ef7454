"""The power is cut at every moment of every story: the next start ends where it would have ended.

`./dev prove control -k power` runs the whole matrix and prints it; `./dev test` a sample of it.
"""

import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.control.deployer import Deployer
from agent.control.record import Records
from agent.errors import Refused
from agent.protocol.commands import Deploy
from compression.job import Budget
from tests.simulators.power import CutRecords, Moments, in_a_process_of_its_own
from tests.simulators.world import World, manifest, measured

Act = Callable[[Deployer, World], Awaitable[None]]
WATCHED = {"observe_minutes": 10.0, "observe_requests": 100, "collect_inputs": 100}


def deploying(version: int, **order: Any) -> Act:
    async def act(deployer: Deployer, world: World) -> None:
        del world
        body = Deploy.model_validate(
            {"model": "m", "version": version, "budget": Budget(size_mib=1)} | WATCHED | order
        )
        await deployer.start(f"deploy-{version}", body)
        await deployer.wait("m")

    return act


async def going_back(deployer: Deployer, world: World) -> None:
    del world
    await deployer.rollback("rollback-1", "m", None)
    await deployer.wait("m")


async def crashing(deployer: Deployer, world: World) -> None:
    if world.live_label() == "int8":  # it crashes again, unless it has been replaced already
        await deployer.lost("m", "killed by SIGSEGV; expelled")
    await deployer.wait("m")


async def removing(deployer: Deployer, world: World) -> None:
    del world
    with contextlib.suppress(Refused):  # it was removed before the cut, and its answer was lost
        await deployer.remove("m")


@dataclass(frozen=True)
class Story:
    """What is done before, undisturbed, and what the power is cut in."""

    act: Act
    before: tuple[Act, ...] = ()
    inputs: bool = True
    live: float | None = None
    """The agreement of live answers, where it differs from the trial's."""
    world: dict[str, Any] = field(default_factory=dict)


STORIES = {
    "improve": Story(deploying(1)),
    "improve, collecting": Story(deploying(1, collect_minutes=1), inputs=False),
    "improve, wrong live": Story(deploying(1), live=0.5),
    "compress first": Story(deploying(1, strategy="compress-first")),
    "as is": Story(deploying(1, strategy="as-is", budget=Budget())),
    "nothing fits": Story(deploying(1), world={"rungs": {}}),
    "a second version": Story(deploying(2), before=(deploying(1),)),
    "roll back": Story(going_back, before=(deploying(1), deploying(2))),
    "a crash": Story(crashing, before=(deploying(1),)),
    "remove": Story(removing, before=(deploying(1),)),
}


def a_world(folder: Path, story: Story) -> World:
    world = World(folder)
    world.published = {
        version: manifest(version, calibration=story.inputs, evaluation=story.inputs)
        for version in (1, 2)
    }
    world.rungs = {"int8": measured(size_mib=0.9, agreement=0.995)}
    world.live = measured(agreement=story.live) if story.live else None
    for name, value in story.world.items():
        setattr(world, name, value)
    return world


def run(folder: Path, story: Story, *, cut_at: int = 0, log: Path | None = None) -> int:
    """One process from its start to the end of the act, or to the cut."""

    async def work() -> None:
        world = a_world(folder, story)
        moments = Moments(folder, cut_at=cut_at, log=log)
        deployer = world.deployer(CutRecords(folder / "records", moments))
        with moments.watched():
            await deployer.resume()
            await story.act(deployer, world)
            await deployer.stop()
        (folder / "end.json").write_text(json.dumps(end_of(deployer, world)))

    return in_a_process_of_its_own(work)


def end_of(deployer: Deployer, world: World) -> list[Any]:
    """What the fleet is told in the end, and whether it is true; no messages."""
    told = []
    for record in deployer.records():
        live, deployment = record.live, record.deployment
        told.append([
            record.model, deployment.state if deployment else None,
            [live.version, live.label, live.sha256] if live else None,
            [v.label for v in (record.previous, record.before) if v], len(record.distrusted),
            world.loaded[record.model].sha256 if record.model in world.loaded else None,
        ])  # fmt: skip
    kept = sorted(str(path.relative_to(world.folder)) for path in world.folder.rglob("*.onnx"))
    return [told, kept]


def prepare(folder: Path, story: Story) -> None:
    folder.mkdir()
    for number, act in enumerate(story.before):
        assert run(folder, Story(act, inputs=story.inputs)) == 0, number


def undisturbed(folder: Path, story: Story) -> tuple[list[tuple[str, str]], Any]:
    """The moments of a story that nothing disturbs, and its end."""
    prepare(folder, story)
    log = folder.with_suffix(".moments")
    assert run(folder, story, log=log) == 0
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [(state, what) for state, what in lines], json.loads((folder / "end.json").read_text())


def check(folder: Path, story: Story, cut_at: int, wanted: Any) -> None:
    prepare(folder, story)
    assert run(folder, story, cut_at=cut_at) == -9
    assert run(folder, story) == 0, "the next start"
    assert json.loads((folder / "end.json").read_text()) == wanted
    assert not list(folder.rglob("*.partial")), "what was half written is gone"
    assert not list(folder.rglob("*.damaged")), "no record was ever half of one"


@pytest.mark.parametrize("name", STORIES)
def test_a_power_cut_at_any_of_a_few_moments_ends_the_same(tmp_path: Path, name: str) -> None:
    moments, wanted = undisturbed(tmp_path / "whole", STORIES[name])
    chance = random.Random(name)
    for cut_at in chance.sample(range(1, len(moments) + 1), 3):
        check(tmp_path / str(cut_at), STORIES[name], cut_at, wanted)


@pytest.mark.prove
@pytest.mark.parametrize("name", STORIES)
def test_a_power_cut_at_every_moment_ends_the_same(tmp_path: Path, name: str) -> None:
    moments, wanted = undisturbed(tmp_path / "whole", STORIES[name])
    for cut_at in range(1, len(moments) + 1):
        try:
            check(tmp_path / str(cut_at), STORIES[name], cut_at, wanted)
        except AssertionError as error:
            state, what = moments[cut_at - 1]
            raise AssertionError(f"cut {cut_at} in {state}, {what}: {error}") from error
    kinds = Counter((state, what.split()[0]) for state, what in moments)
    print(f"\n{name}: {len(moments)} cuts, all ended {wanted[0]}")
    for (state, kind), count in sorted(kinds.items()):
        print(f"  {state:12} {kind:8} {count:4}")


def test_a_damaged_record_is_set_aside_and_the_rest_comes_back(tmp_path: Path) -> None:
    story = STORIES["improve"]
    prepare(tmp_path / "a", Story(story.act, before=(story.act,)))
    (tmp_path / "a" / "records" / "other.json").write_bytes(b'{"model": "other", "liv')

    async def work() -> None:
        world = a_world(tmp_path / "a", story)
        deployer = world.deployer(Records(tmp_path / "a" / "records"))
        await deployer.resume()
        assert world.live_label() == "int8"
        assert [record.model for record in deployer.records()] == ["m"]

    assert in_a_process_of_its_own(work) == 0
    assert (tmp_path / "a" / "records" / "other.damaged").exists()


async def test_where_the_variant_is_damaged_the_original_serves_and_it_is_told(
    tmp_path: Path,
) -> None:
    world = a_world(tmp_path, STORIES["improve"])
    await STORIES["improve"].act(world.deployer(), world)
    for path in tmp_path.rglob("int8.onnx"):
        path.write_bytes(b"bad")
    world.loaded.clear()
    troubles = await world.deployer().resume()
    assert len(troubles) == 1
    assert "cannot bring back m (int8)" in troubles[0]
    assert world.live_label() == "model"
