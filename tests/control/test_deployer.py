"""Deployments in a small true world: every way they go, and every way they end."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.control.deployer import Deployer
from agent.control.record import Record, Records
from agent.control.states import WORKING, State
from agent.errors import Corrupt, Refused, Unavailable
from agent.protocol.commands import Deploy
from compression.errors import BadModel, CannotRun
from compression.job import Budget
from tests.simulators.world import World, manifest, measured

SMALL = Budget(size_mib=1.0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.published = {1: manifest(1), 2: manifest(2)}
    made.rungs = {
        "int8": measured(size_mib=0.9, agreement=0.995),
        "tiny": measured(size_mib=0.5, agreement=0.7),
    }
    return made


async def deploy(
    deployer: Deployer, version: int = 1, command: str = "command-1", **order: object
) -> Record:
    body = Deploy.model_validate({"model": "m", "version": version, "budget": SMALL} | order)
    await deployer.start(command, body)
    return await deployer.wait("m")


def ended(record: Record) -> tuple[State, str]:
    assert record.deployment is not None
    return record.deployment.state, record.deployment.message


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


async def test_what_is_not_there_yet_is_waited_for(world: World) -> None:
    late = world.published.pop(1)
    deployer = world.deployer()
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL))
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
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL))
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
    State.COMPRESSING: "compress",
    State.SWITCHING: "load",
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
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL))
    await reached.wait()
    await deployer.cancel("m")
    world.before.clear()
    record = await deployer.wait("m")
    serving = state in {State.COMPRESSING, State.SWITCHING}
    assert ended(record)[0] is (State.LIVE if serving else State.FAILED)
    assert ended(record)[1] == "cancelled by command"
    assert bool(world.loaded) is serving


async def test_a_variant_that_the_server_gave_up_is_replaced_by_what_served_before(
    world: World,
) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    await deployer.lost("m", "killed by SIGSEGV; expelled")
    assert world.live_label() == "model"
    state, message = ended(deployer.records()[0])
    assert state is State.LIVE
    assert message == "fell back to 'original': killed by SIGSEGV; expelled"
    await deployer.lost("m", "killed by SIGSEGV; expelled")
    assert "no variant is left" in world.events[-1][2]


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
    await deployer.start("command-1", Deploy(model="m", version=1, budget=SMALL))
    await reached.wait()
    await deployer.cancel("m")
    world.before.clear()
    await deployer.wait("m")
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
    await deployer.start("command-2", Deploy(model="m", version=2, budget=SMALL))
    world.before["fetch_manifest"] = asyncio.Event().wait
    go_on.set()
    await falling_back
    (record,) = deployer.records()
    assert record.deployment
    assert record.deployment.id == "command-2"
    await deployer.stop()


async def test_a_version_for_newer_agents_is_refused(world: World) -> None:
    world.published[1] = manifest(1, least_agent_version="99.1")
    state, message = ended(await deploy(world.deployer()))
    assert state is State.REFUSED
    assert "it needs agent 99.1, this one is" in message


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


async def test_versions_that_are_no_way_back_are_deleted(world: World) -> None:
    deployer = world.deployer()
    world.published[3] = manifest(3)
    for version in (1, 2, 3):
        await deploy(deployer, version, f"command-{version}")
    kept = {path.name for path in (world.folder / "models" / "m").iterdir()}
    assert "3" in kept
    assert "1" not in kept


def test_no_working_state_is_left_out_of_the_matrix() -> None:
    assert set(WORKING) - set(ACTS) == {State.TRYING, State.RESTORING}


async def test_a_state_that_waits_too_long_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("agent.control.deployer").control.deployer.DEADLINE_S,
                        State.VERIFYING, 0.05)  # fmt: skip

    def never() -> None:
        raise Unavailable("cannot find it")

    world.before["fetch_manifest"] = never
    state, message = ended(await deploy(world.deployer()))
    assert (state, message) == (State.FAILED, "cannot finish verifying in 0 s")
