"""Brokers, servers and agents that die in the middle: the same end, and no request refused."""

import asyncio
import contextlib
import http.client
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import RunningAgent, running_agent, until
from tests.simulators.broker import (
    RunningBroker,
    iotcore_broker,
    mosquitto_broker,
    mosquitto_path,
)
from tests.simulators.fleet import make_keys, operator
from tests.simulators.proxy import Proxy

FITTING = {"budget": Budget(size_ratio=0.6, min_agreement=0.5), "minutes": 2}


@contextmanager
def a_broker(kind: str) -> Iterator[RunningBroker]:
    """A broker that forgets what it retained when it is restarted, or one that keeps it."""
    if kind == "forgets":
        with iotcore_broker() as running:
            yield running
    else:
        if mosquitto_path() is None:
            pytest.skip("needs mosquitto: apt-get install mosquitto")
        with mosquitto_broker(persistence=True) as running:
            yield running


@asynccontextmanager
async def slow_site(folder: Path, broker: RunningBroker) -> AsyncIterator[tuple[Site, Proxy]]:
    """A site whose device hangs on a thin line."""
    private, keys = make_keys(folder / "keys")
    async with Proxy(broker.port) as proxy:
        with contextlib.ExitStack() as stack:
            device = running_agent(
                folder / "device", broker_port=proxy.port, keys=keys,
                pull_timeout_s="3", window_topics="4",
            )  # fmt: skip
            # In a thread: the proxy that it talks through lives in this loop.
            agent = await asyncio.to_thread(stack.enter_context, device)
            async with operator(broker.port, private, keys) as fleet:
                yield Site(broker, agent, fleet, folder), proxy


@pytest.mark.parametrize("kind", ["forgets", "keeps"])
async def test_a_broker_killed_in_the_middle_of_a_pull_changes_nothing(
    tmp_path: Path, kind: str
) -> None:
    with a_broker(kind) as broker:
        async with slow_site(tmp_path, broker) as (site, proxy):
            model = models.mlp(tmp_path / "big.onnx", hidden=120_000)
            published = await site.fleet.publish(model)
            await asyncio.sleep(2.5 if kind == "keeps" else 0)  # mosquitto saves once a second
            proxy.bytes_per_s = 1_500_000
            deployment = await site.fleet.deploy(strategy="as-is")
            journal = tmp_path / "device/state/models/m/1/model.onnx.journal"
            await until_true(lambda: journal.exists() and journal.stat().st_size >= 32 + 8 * 20)
            broker.kill()
            assert not list((tmp_path / "device" / "state").rglob("model.onnx"))
            broker.start()
            if kind == "forgets":
                await site.fleet.link.connected(20)
                await site.fleet.publish(model)
            end = await site.fleet.end_of(deployment)
            assert end.state == "live", end.message
            # Events and the status travel apart: the status may come a moment later.
            await site.fleet.until(
                lambda: [m.sha256 for m in site.fleet.status["pole-7"].models]
                == [published.files.model.sha256] or None, what="the status that says so",
            )  # fmt: skip


async def until_true(check: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not check():
            await asyncio.sleep(0.02)


@dataclass
class Traffic:
    """Clients that ask all the time, one connection a request, from threads of their own."""

    agent: RunningAgent
    body: bytes
    answered: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    broken: int = 0
    stopping: bool = False

    def run(self) -> None:
        while not self.stopping:
            connection = http.client.HTTPConnection("127.0.0.1", self.agent.http_port, timeout=15)
            try:
                connection.connect()
                connection.request("POST", "/v2/models/m/infer", self.body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    self.answered.append(time.monotonic())
                else:
                    self.refused.append(f"{answer.status} {text[:80]!r}")
            except ConnectionRefusedError as error:
                self.refused.append(repr(error))
            except (OSError, http.client.HTTPException):
                self.broken += 1  # it was in flight when the server died: a clean error
            finally:
                connection.close()

    def longest_gap_s(self) -> float:
        times = sorted(self.answered)
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


@contextmanager
def traffic(agent: RunningAgent, inputs: models.Arrays, clients: int = 4) -> Iterator[Traffic]:
    body = json.dumps(
        {"inputs": [{"name": n, "shape": list(a.shape), "datatype": "FP32",
                     "data": a.ravel().tolist()} for n, a in inputs.items()]}
    ).encode()  # fmt: skip
    load = Traffic(agent, body)
    threads = [threading.Thread(target=load.run, name=f"client {i}") for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stopping = True
        for thread in threads:
            thread.join(20)


async def test_a_killed_server_is_back_and_no_connection_is_refused(site: Site) -> None:
    await site.fleet.publish(**site.cnn())
    end = await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    assert end.state == "live", end.message
    inputs = models.sample_inputs(site.folder / "cnn-0.onnx", 1, 0)
    with traffic(site.agent, inputs) as load:
        await until_true(lambda: len(load.answered) > 50)
        before = len(load.answered)
        for server in site.agent.children("agent.serving.server"):
            server.send_signal(signal.SIGKILL)
        await until_true(lambda: len(load.answered) > before + 100)
    assert not load.refused
    assert load.broken <= 4  # what was in flight, one for each client
    print(f"longest gap between answers {load.longest_gap_s():.2f} s")
    crash = await site.fleet.event(lambda e: e.kind == "crashed", what="event of the crash")
    assert "SIGKILL" in crash.message


@pytest.mark.parametrize("seed", range(2))
async def test_an_agent_killed_at_a_random_moment_ends_in_a_serving_model(
    site: Site, seed: int
) -> None:
    await kill_and_restart(site, seed)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(10))
async def test_an_agent_killed_at_ten_random_moments(site: Site, seed: int) -> None:
    await kill_and_restart(site, 100 + seed)


async def kill_and_restart(site: Site, seed: int) -> None:
    """Kill -9 at a random moment of a deployment; the next start ends in the same place."""
    chance = random.Random(seed)
    await site.fleet.publish(**site.cnn())
    deployment = await site.fleet.deploy(**FITTING)
    await asyncio.sleep(chance.uniform(0.0, 6.0))
    heard = [e.state for e in site.fleet.events if e.kind == "state"]
    orphans = site.agent.children("agent.serving.server") + site.agent.children("compression.")
    site.agent.kill()
    print(f"seed {seed}: killed in {heard[-1] if heard else 'no state yet'}")
    await asyncio.to_thread(
        until, lambda: not any(p.is_running() for p in orphans) or None, what="orphans gone"
    )
    site.fleet.events.clear()
    site.agent.start()
    await asyncio.to_thread(until, lambda: site.agent.ready() or None, what="agent ready")
    if heard[-1:] != ["live"]:
        end = await site.fleet.end_of(deployment)
        assert end.state == "live", end.message
    inputs = models.sample_inputs(site.folder / "cnn-0.onnx", 1, 0)
    assert site.agent.infer("m", inputs)["outputs"]
    live = await site.settled()
    assert live.variant != "original"


async def test_an_agent_whose_broker_is_down_serves_what_it_has(site: Site) -> None:
    await site.fleet.publish(**site.cnn())
    await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    site.broker.kill()
    assert site.agent.stop() == 0
    site.agent.start()
    await asyncio.to_thread(until, lambda: site.agent.ready() or None, what="agent ready")
    inputs = models.sample_inputs(site.folder / "cnn-0.onnx", 1, 0)
    assert site.agent.infer("m", inputs)["outputs"]
    await until_true(lambda: "Connection refused; trying again" in site.agent.log())


async def test_a_busy_port_is_one_clear_error(site: Site) -> None:
    second = RunningAgent(
        site.folder,
        site.agent.environment | {"TRIMTAB_STATE_DIR": str(site.folder / "second"),
                                  "TRIMTAB_HEALTH_PORT": "0"},
        0, 0,
    )  # fmt: skip
    second.start()
    assert second.process
    assert await asyncio.to_thread(second.process.wait, 30) == 4
    assert f"cannot listen on 127.0.0.1:{site.agent.http_port}" in second.log()


async def test_a_second_agent_in_the_same_folder_is_one_clear_error(site: Site) -> None:
    second = RunningAgent(site.folder, site.agent.environment, 0, 0)
    second.start()
    assert second.process
    assert await asyncio.to_thread(second.process.wait, 30) == 4
    assert "another agent works in it" in second.log()
