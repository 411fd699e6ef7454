"""Commands, faults, crashes and restarts in any order, against a small model of what must hold."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agent.control import ways_back
from agent.control.deployer import Deployer
from agent.control.record import Record
from agent.control.states import REST, State
from agent.errors import Corrupt, Refused, TrimtabError, Unavailable
from agent.protocol.commands import Deploy, Recompress, SetBudget
from compression.errors import CannotRun
from compression.job import Budget
from tests.simulators.world import World, manifest, measured

FAULTS: dict[str, Exception] = {
    "fetch_manifest": Unavailable("cannot reach the broker"),
    "fetch_file": Corrupt("cannot use a chunk"),
    "trial": CannotRun("cannot run here: killed by SIGILL"),
    "compress": CannotRun("cannot compress: killed by SIGKILL"),
    "load": Refused("cannot load m: the server: killed by SIGSEGV"),
    "capture": Unavailable("cannot reach the server"),
    "gather": Unavailable("cannot gather: killed"),
    "shadow": Unavailable("cannot start agent.serving.shadow"),
}


class Deployments(RuleBasedStateMachine):
    """One device with one model; every rule ends at rest or leaves the work under way."""

    steps = 0
    """Taken by all of them together."""

    @initialize()
    def begin(self) -> None:
        # In memory where there is such a place: here no power is cut, and syncs take their time.
        self._folder = TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._serves = False
        """Whether something has to serve: it did, and nothing that may have taken it away came."""
        self._boot(World(Path(self._folder.name)))

    def _boot(self, world: World) -> None:
        world.published = {
            version: manifest(version, calibration=version != 2) for version in (1, 2, 3)
        }
        world.rungs = {"int8": measured(size_mib=0.9, agreement=0.995)}
        world.again_s = 0.001
        world.look_s = 300.0
        self.world = world
        self.deployer: Deployer = world.deployer()
        self._run(self.deployer.resume())

    def teardown(self) -> None:
        if hasattr(self, "_loop"):
            self._run(self.deployer.stop())
            self._loop.close()
            self._folder.cleanup()

    def _run(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await work

        return self._loop.run_until_complete(bounded())

    def _ask(self, work: Any) -> bool:
        """Give a command; whether it was obeyed."""
        try:
            self._run(work)
        except TrimtabError:
            return False
        return True

    @property
    def record(self) -> Record | None:
        return next(iter(self.deployer.records()), None)

    @rule(
        version=st.integers(1, 3),
        strategy=st.sampled_from(["improve", "compress-first", "as-is"]),
        observe=st.sampled_from([0.0, 5.0]),
        collect=st.sampled_from([0, 50]),
        size_mib=st.sampled_from([1.0, 5.0]),
    )
    def deploy(
        self, version: int, strategy: str, observe: float, collect: int, size_mib: float
    ) -> None:
        self._number += 1
        order = Deploy.model_validate({
            "model": "m", "version": version, "strategy": strategy, "collect_inputs": collect,
            "collect_minutes": 1, "collect_hours": 1, "observe_minutes": observe,
            "observe_requests": 50, "budget": Budget(size_mib=size_mib),
        })  # fmt: skip
        self._ask(self.deployer.start(f"command-{self._number}", order))

    @rule(size_mib=st.sampled_from([0.1, 0.95, 5.0]), observe=st.sampled_from([0.0, 5.0]))
    def set_budget(self, size_mib: float, observe: float) -> None:
        self._number += 1
        order = SetBudget(
            model="m", budget=Budget(size_mib=size_mib), observe_minutes=observe,
            observe_requests=50,
        )  # fmt: skip
        self._ask(self.deployer.again(f"command-{self._number}", order))

    @rule(collect=st.sampled_from([0, 50]), observe=st.sampled_from([0.0, 5.0]))
    def recompress(self, collect: int, observe: float) -> None:
        self._number += 1
        order = Recompress(
            model="m", when="now", collect_inputs=collect, collect_minutes=1, collect_hours=1,
            observe_minutes=observe, observe_requests=50,
        )  # fmt: skip
        self._ask(self.deployer.again(f"command-{self._number}", order))

    @rule(label=st.sampled_from(["int8", "other"]), agreement=st.sampled_from([0.99, 0.995, 0.999]))
    def the_worker_makes_something_else(self, label: str, agreement: float) -> None:
        self.world.rungs = {label: measured(size_mib=0.9, agreement=agreement)}

    @rule(version=st.sampled_from([None, 1, 2, 3]))
    def roll_back(self, version: int | None) -> None:
        self._number += 1
        self._ask(self.deployer.rollback(f"command-{self._number}", "m", version))

    @rule()
    def cancel(self) -> None:
        self._ask(self.deployer.cancel("m"))

    @rule()
    def forget(self) -> None:
        self._ask(self.deployer.forget_inputs("m"))

    @rule()
    def remove(self) -> None:
        if self._ask(self.deployer.remove("m")):
            self._serves = False
            assert self.record is None
            assert not list(self.world.folder.rglob("*.onnx"))

    @rule(act=st.sampled_from(sorted(FAULTS)))
    def something_fails_once(self, act: str) -> None:
        def fail() -> None:
            self.world.before.pop(act, None)
            if act == "load":
                self._serves = False  # also the way back may fail once
            raise FAULTS[act]

        self.world.before[act] = fail

    @rule(agreement=st.sampled_from([None, 0.5]), traffic=st.sampled_from([0, 40]))
    def the_world_turns(self, agreement: float | None, traffic: int) -> None:
        self.world.live = measured(agreement=agreement) if agreement else None
        self.world.traffic = traffic

    @rule()
    def what_serves_crashes(self) -> None:
        if "m" in self.world.loaded:
            del self.world.loaded["m"]  # expelled
            self._serves = False
            self._run(self.deployer.lost("m", "killed by SIGSEGV; expelled"))

    @rule(turns=st.integers(0, 60))
    def time_goes_by(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self._run(turn())

    @rule()
    def the_power_fails(self) -> None:
        self._run(self.deployer.stop())  # each save is whole: what was under way is forgotten
        after = World(self.world.folder)
        self._boot(after)

    @rule()
    def all_comes_to_rest(self) -> None:
        record = self.record
        if record is None:
            return
        self._run(self.deployer.wait("m"))
        record = self.record
        assert record is not None
        if record.deployment is not None:
            assert record.deployment.state in REST
        if record.deployment and record.deployment.state is State.LIVE:
            assert record.live is not None
            if not ways_back.fallen(record):
                self._serves = True
        if record.live is not None and self._serves:
            assert "m" in self.world.loaded

    @invariant()
    def a_step_was_taken(self) -> None:
        Deployments.steps += 1

    @invariant()
    def what_is_told_is_what_runs(self) -> None:
        if not hasattr(self, "world"):
            return
        record = self.record
        loaded = self.world.loaded.get("m")
        if loaded is not None:
            found = Path(loaded.path)
            assert found.exists(), "what serves stays on the disk"
        at_rest = record and record.deployment and record.deployment.state in REST
        tidying = self.deployer._tasks.running("m")
        if at_rest and record and record.live and loaded and not tidying:
            assert loaded.sha256 == record.live.sha256
            assert loaded.version == record.live.version

    @invariant()
    def every_way_back_is_on_the_disk(self) -> None:
        if not hasattr(self, "world") or self.record is None:
            return
        for variant in ways_back.others(self.record):
            assert (self.world.folder / variant.path).exists()


def run(steps: int, examples: int) -> None:
    run_state_machine_as_test(
        Deployments,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_commands_faults_and_restarts_in_any_order_leave_a_true_device() -> None:
    run(steps=25, examples=6)


@pytest.mark.prove
def test_ten_thousand_steps_in_any_order_leave_a_true_device() -> None:
    Deployments.steps = 0
    run(steps=50, examples=220)
    print(f"\n{Deployments.steps} steps")
    assert Deployments.steps >= 10_000
