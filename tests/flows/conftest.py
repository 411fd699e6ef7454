"""A broker, an operator with a key, and an agent on one device."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agent.protocol.events import Live
from tests.simulators import models
from tests.simulators.agent import RunningAgent, running_agent
from tests.simulators.broker import RunningBroker, iotcore_broker
from tests.simulators.fleet import RESTS, Fleet, make_keys, operator


@dataclass
class Site:
    """Everything of one story."""

    broker: RunningBroker
    agent: RunningAgent
    fleet: Fleet
    folder: Path

    def cnn(self, seed: int = 0, *, inputs: int = 60) -> dict[str, Path]:
        """A small real model with calibration inputs, as `Fleet.publish` takes them."""
        model = self.folder / f"cnn-{seed}.onnx"
        models.cnn(model, seed=seed)
        calibration = self.folder / f"cnn-{seed}.npz"
        np.savez(calibration, **models.sample_inputs(model, inputs, seed))
        return {"model": model, "calibration": calibration}

    async def settled(self, name: str = "m") -> Live:
        """What the status says of a model at rest: it travels apart from events, and may come
        a moment behind them."""

        def told() -> Live | None:
            models_ = self.fleet.status["pole-7"].models
            return next((m for m in models_ if m.name == name and m.state in RESTS), None)

        found: Live = await self.fleet.until(told, what="the status of a model at rest")
        return found


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with iotcore_broker() as running:
        yield running


@pytest.fixture
async def site(tmp_path: Path, broker: RunningBroker) -> AsyncIterator[Site]:
    private, keys = make_keys(tmp_path / "keys")
    with running_agent(tmp_path / "device", broker_port=broker.port, keys=keys) as agent:
        async with operator(broker.port, private, keys) as fleet:
            # Ready to serve is not yet ready to obey: nobody keeps commands for a stranger.
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, tmp_path)
