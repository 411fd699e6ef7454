"""Three real models within 1 GiB and 60 % of one core: deployed, arbitrated, and under load."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent import outputs
from agent.protocol.commands import Describe
from compression.job import Budget
from tests.fixtures import models as fixtures
from tests.fixtures import more
from tests.flows.conftest import Site
from tests.simulators.agent import RunningAgent, running_agent
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import Fleet, make_keys, operator

MEMORY_MIB = 1024.0
ONE_CORE = 0.60
TRANSPORT = 0.08
"""Of one core, for HTTP; the rest is the models'."""
CORES = os.cpu_count() or 1
RATES_HZ = {"reader": 15.0, "digits": 20.0, "angle": 20.0}
MADE = {"reader": more.recogniser, "digits": fixtures.svhn, "angle": fixtures.text_angle}
LOAD_S = 30.0


@pytest.fixture
async def crowded(tmp_path: Path, broker: RunningBroker) -> AsyncIterator[Site]:
    private, keys = make_keys(tmp_path / "keys")
    room = {
        "models_memory_mib": "640",  # the worker's process and the agent's take the rest
        "models_cpu_share": f"{(ONE_CORE - TRANSPORT) / CORES:.4f}",
        "worker_memory_mib": "640",
    }
    with running_agent(tmp_path / "device", broker_port=broker.port, keys=keys, **room) as agent:
        async with operator(broker.port, private, keys) as fleet:
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, tmp_path)


class Memory(threading.Thread):
    """The most that the agent and its children have had to themselves."""

    def __init__(self, agent: RunningAgent) -> None:
        super().__init__(daemon=True, name="memory of the tree")
        assert agent.process
        self._root = psutil.Process(agent.process.pid)
        self.most_mib, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            total = 0.0
            for each in [self._root, *self._root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += each.memory_full_info().uss / 2**20
            self.most_mib = max(self.most_mib, total)


@contextlib.contextmanager
def watched(agent: RunningAgent) -> Iterator[Memory]:
    memory = Memory(agent)
    memory.start()
    yield memory
    memory.over.set()
    memory.join()


def request(name: str, array: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """A body with its tensor behind the JSON, and its headers."""
    said = {"name": name, "shape": array.shape, "datatype": "FP32",
            "parameters": {"binary_data_size": array.nbytes}}  # fmt: skip
    head = json.dumps({"inputs": [said]}).encode()
    return head + array.tobytes(), {"Inference-Header-Content-Length": str(len(head))}


def drive(
    port: int, model: str, asked: tuple[bytes, dict[str, str]], rate_hz: float,
    done: dict[str, int],
) -> None:  # fmt: skip
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.monotonic()
    due = began
    while (now := time.monotonic()) < began + LOAD_S:
        time.sleep(max(0.0, due - now))
        due += 1 / rate_hz
        connection.request("POST", f"/v2/models/{model}/infer", *asked)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        done[model] += 1


async def deployed(fleet: Fleet, name: str, fixture: fixtures.Fixture) -> None:
    """Publish a model and wait until it is live within its budget."""
    await fleet.publish(
        fixture.onnx, name=name, calibration=fixture.calibration,
        outputs=outputs.read([fixture.outputs]),
    )  # fmt: skip
    budget = Budget(request_rate_hz=RATES_HZ[name], min_agreement=0.95)
    end = await fleet.end_of(
        await fleet.deploy(model=name, budget=budget, minutes=4), within_s=1500
    )
    told = [f"{e.kind} {e.model} {e.message}" for e in fleet.events
            if e.kind in {"swapped", "state"}]  # fmt: skip
    print(f"{name}: {end.state} {end.message}")
    assert end.state == "live", told[-12:]


def body(fixture: fixtures.Fixture) -> tuple[bytes, dict[str, str]]:
    """A request about one of the inputs of a model's calibration."""
    with np.load(fixture.calibration) as inputs:
        first = inputs.files[0]
        array = inputs[first]
    array = array if "::" in first else array[:1]
    return request(first.partition("::")[0], array.astype(np.float32))


@pytest.mark.prove
@pytest.mark.timeout(3600)
async def test_three_models_share_a_small_device(crowded: Site) -> None:
    fleet, agent = crowded.fleet, crowded.agent
    made = {name: make() for name, make in MADE.items()}
    with watched(agent) as memory:
        for name, fixture in made.items():
            await deployed(fleet, name, fixture)

        server = agent.children("agent.serving.server")[0]
        done = dict.fromkeys(made, 0)
        threads = [
            threading.Thread(
                target=drive, args=(agent.http_port, name, body(fixture), RATES_HZ[name], done)
            )
            for name, fixture in made.items()
        ]
        spent, began = server.cpu_times(), time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        now, took_s = server.cpu_times(), time.monotonic() - began
    cpu_s = now.user + now.system - spent.user - spent.system
    print(f"\n{cpu_s / took_s:.1%} of one core at {done} in {took_s:.0f} s; "
          f"server {server.memory_info().rss / 2**20:.0f} MiB, "
          f"all processes at most {memory.most_mib:.0f} MiB")  # fmt: skip
    for event in fleet.events:
        if event.kind == "swapped" or event.message.startswith("the original cannot serve"):
            measured = event.figures.get("measurement", {})
            print(event.model, event.message, f"{measured.get('peak_memory_mib', 0):.0f} MiB",
                  f"{measured.get('cpu_ms_per_inference', 0):.2f} ms")  # fmt: skip
    live = {e.model: e.figures["measurement"] for e in fleet.events if e.kind == "swapped"}
    shares = [one["cpu_ms_per_inference"] * RATES_HZ[name] / 1000 for name, one in live.items()]
    print(f"planned {sum(shares):.1%} of one core")
    assert sum(shares) <= ONE_CORE - TRANSPORT
    assert memory.most_mib <= MEMORY_MIB
    asked = sum(RATES_HZ.values()) * took_s
    assert cpu_s / took_s <= ONE_CORE * sum(done.values()) / asked * 1.05
    status = (await fleet.ask(Describe())).result["status"]
    assert {one["name"] for one in status["models"]} == set(made)
