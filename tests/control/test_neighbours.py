"""Several models on one device: budgets that leave room, steps down and up, and who is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.control.arbitration import Room
from agent.control.deployer import Deployer
from agent.control.parts import Parts
from agent.control.record import Record, Variant
from agent.control.states import State
from agent.protocol.commands import Deploy
from compression.job import Budget
from tests.simulators.world import World, manifest, measured


class Street(World):
    """A device with room for so much, whatever its models are called."""

    room = Room()

    def parts(self) -> Parts:
        return replace(
            super().parts(), room=lambda: self.room, neighbours=self._records, step=self._step,
            fetch_manifest=self._any_manifest,
        )  # fmt: skip

    def _records(self) -> tuple[Record, ...]:
        return self.of.records()

    async def _step(self, model: str, variant: Variant, message: str) -> None:
        await self.of.step(model, variant, message)

    async def _any_manifest(self, name: str, version: int) -> bytes:
        del version
        return self.published[1].model_copy(update={"name": name}).to_json()

    def deployer(self, records=None) -> Deployer:
        self.of = super().deployer(records)
        return self.of


@pytest.fixture
def street(tmp_path: Path) -> Street:
    made = Street(tmp_path)
    made.published = {1: manifest(1)}
    made.original = measured(peak_memory_mib=60)
    made.rungs = {
        "good": measured(peak_memory_mib=40, agreement=0.999),
        "small": measured(peak_memory_mib=10, agreement=0.985),
    }
    return made


async def deploy(deployer: Deployer, model: str, **order: object) -> Record:
    fields = {"observe_minutes": 0, "collect_inputs": 0, "strategy": "compress-first"}
    body = Deploy.model_validate(
        {"model": model, "version": 1, "budget": Budget(min_agreement=0.98)} | fields | order
    )
    await deployer.start(f"command-of-{model}", body)
    return await deployer.wait(model)


def serving(street: Street) -> dict[str, str]:
    return {name: Path(request.path).stem for name, request in street.loaded.items()}


async def test_a_new_model_makes_another_step_down_a_rung(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(memory_mib=140)
    await deploy(deployer, "first", budget=Budget(min_agreement=0.98, peak_memory_mib=50))
    assert serving(street) == {"first": "good"}
    await deploy(deployer, "second", budget=Budget(min_agreement=0.98, peak_memory_mib=50))
    assert serving(street) == {"first": "good", "second": "good"}
    await deploy(deployer, "third", budget=Budget(min_agreement=0.98, peak_memory_mib=50))
    assert sorted(serving(street).values()) == ["good", "good", "small"]
    stepped = next(name for name, rung in serving(street).items() if rung == "small")
    record = next(one for one in deployer.records() if one.model == stepped)
    assert record.deployment is not None
    assert record.deployment.state is State.LIVE
    assert "to make room for" in record.deployment.message


async def test_when_a_model_goes_the_others_step_up_again(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(memory_mib=140)
    large = Budget(min_agreement=0.98, peak_memory_mib=50)
    for name in ("first", "second", "third"):
        await deploy(deployer, name, budget=large)
    await deployer.remove(next(name for name, rung in serving(street).items() if rung == "good"))
    assert sorted(serving(street).values()) == ["good", "good"]


async def test_nobody_steps_down_for_less_priority(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(memory_mib=85)
    large = Budget(min_agreement=0.98, peak_memory_mib=50)
    await deploy(deployer, "first", budget=large, priority=5)
    street.rungs = {"good": street.rungs["good"]}
    record = await deploy(deployer, "second", budget=large)
    assert record.deployment is not None
    assert record.deployment.state is State.REFUSED
    assert "2 models take 80 MiB, with 40 MiB for a swap" in record.deployment.message
    assert serving(street) == {"first": "good"}


async def test_what_nobody_bounded_is_bounded_by_what_the_others_leave(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(memory_mib=130)
    street.original = measured(peak_memory_mib=70)
    await deploy(deployer, "first")
    assert serving(street) == {"first": "good"}  # 65 MiB are its part
    record = await deploy(deployer, "second")
    assert record.deployment is not None
    assert record.deployment.effective_budget is not None
    assert record.deployment.effective_budget.peak_memory_mib == 45  # and once more for a swap
    assert serving(street) == {"first": "good", "second": "good"}


async def test_shares_of_the_cpu_add_up(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(cpu_share=0.6)
    slow, quick = {"cpu_ms_per_inference": 16.0}, {"cpu_ms_per_inference": 4.0}
    street.rungs = {
        "good": measured(agreement=0.999, size_mib=1.0, **slow),
        "small": measured(agreement=0.985, size_mib=1.0, **quick),
    }
    street.original = measured(cpu_ms_per_inference=40.0)
    rate = Budget(min_agreement=0.98, request_rate_hz=100, cpu_share=0.5)
    await deploy(deployer, "first", budget=rate)  # 1.6 of 4 cores: 40 %
    assert serving(street) == {"first": "good"}
    await deploy(deployer, "second", budget=rate)
    assert sorted(serving(street).values()) == ["good", "small"]  # 40 % and 10 %


async def test_what_stepped_down_serves_so_after_a_restart_too(street: Street) -> None:
    deployer = street.deployer()
    street.room = Room(memory_mib=140)
    large = Budget(min_agreement=0.98, peak_memory_mib=50)
    for name in ("first", "second", "third"):
        await deploy(deployer, name, budget=large)
    before = serving(street)
    await deployer.stop()
    street.loaded.clear()
    await street.deployer().resume()
    assert serving(street) == before
