"""A device whose memory holds one model but not two: it replaces, with a gap, and restores."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import RunningAgent, running_agent
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import make_keys, operator
from tests.simulators.groups import Group, control_group

HIDDEN = 1_600_000
"""Units of a model of two layers: 80 MB of weights."""


@pytest.fixture
def group() -> Iterator[Group]:
    with control_group("memory") as made:
        if made is None:
            pytest.skip("needs the right to make a memory control group")
        made.limit(4096)
        yield made


@asynccontextmanager
async def a_site(broker: RunningBroker, folder: Path) -> AsyncIterator[Site]:
    private, keys = make_keys(folder / "keys")
    with running_agent(folder / "device", broker_port=broker.port, keys=keys) as agent:
        async with operator(broker.port, private, keys) as fleet:
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, folder)


class Client:
    """Asks again and again until it is told to stop."""

    def __init__(self, agent: RunningAgent, inputs: dict[str, np.ndarray]) -> None:
        self.answered: list[str] = []
        """The versions that answered."""
        self.failed: list[str] = []
        self.took_s: list[float] = []
        self._agent, self._inputs = agent, inputs
        self._asking = True
        self._task = asyncio.create_task(self._ask())

    async def stop(self) -> None:
        self._asking = False
        await self._task

    async def _ask(self) -> None:
        while self._asking:
            began_s = time.monotonic()
            try:
                answer = await asyncio.to_thread(self._agent.infer, "m", self._inputs)
                self.answered.append(answer["model_version"])
                self.took_s.append(time.monotonic() - began_s)
            except Exception as error:
                self.failed.append(repr(error))


def broken(model: Path, path: Path) -> Path:
    """A copy that fails when it is loaded: room has been made for it by then."""
    made = onnx.load(model)
    made.graph.node[1].op_type, made.graph.node[1].domain = "NoSuchOperator", "nobody"
    made.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    onnx.save(made, path)
    return path


@pytest.mark.prove
@pytest.mark.timeout(300)
async def test_where_two_do_not_fit_one_takes_the_others_place_and_comes_back_where_it_fails(
    broker: RunningBroker, tmp_path: Path, group: Group
) -> None:
    async with a_site(broker, tmp_path) as site:
        fleet, agent = site.fleet, site.agent
        assert agent.process
        for pid in (agent.process.pid, *(p.pid for p in agent.children("agent.serving.server"))):
            group.take(pid)
        for version in (1, 2):
            path = models.mlp(tmp_path / f"{version}.onnx", hidden=HIDDEN, seed=version)
            np.savez(tmp_path / f"{version}.npz", **models.sample_inputs(path, 40, version))
            second = await fleet.publish(
                path, version=version, calibration=tmp_path / f"{version}.npz"
            )
        end = await fleet.end_of(await fleet.deploy(strategy="as-is"))
        assert end.state == "live", end.message
        swapped = next(e for e in fleet.events if e.kind == "swapped")
        assert swapped.figures["gap_ms"] == 0
        peak_mib = swapped.figures["measurement"]["peak_memory_mib"]
        # Room for three quarters of another one.
        group.limit(group.used_mib() + 0.75 * peak_mib)
        print(f"\nmodel of {peak_mib:.0f} MiB; limit {group.used_mib() + 0.75 * peak_mib:.0f} MiB")

        client = Client(agent, models.sample_inputs(tmp_path / "1.onnx", 1))
        fleet.events.clear()
        end = await fleet.end_of(await fleet.deploy(version=2, strategy="as-is"))
        assert end.state == "live", end.message
        swapped = next(e for e in fleet.events if e.kind == "swapped")
        print(f"replaced with a gap of {swapped.figures['gap_ms']:.0f} ms: {end.message}")
        assert swapped.figures["gap_ms"] > 0

        await fleet.publish(broken(tmp_path / "1.onnx", tmp_path / "3.onnx"), version=3)
        fleet.events.clear()
        count = len(client.answered)
        end = await fleet.end_of(await fleet.deploy(version=3, strategy="as-is"))
        assert end.state == "refused", end.message
        assert "NoSuchOperator" in end.message
        await fleet.until(lambda: len(client.answered) > count or None, what="an answer afterwards")
        await client.stop()
        print(f"{end.message[:120]}; version {client.answered[-1]} serves again")
        print(
            f"{len(client.answered)} answers, {len(client.failed)} failures, "
            f"the longest took {max(client.took_s):.2f} s"
        )
        assert not client.failed, client.failed[:3]
        assert sorted(set(client.answered)) == ["1", "2"]
        assert client.answered[-1] == "2"
        live = fleet.status["pole-7"].models[0]
        assert (live.version, live.sha256) == (2, second.files.model.sha256)
