"""Load begins in the middle of a training in the agent: it is paused, and those who ask feel none.

`./dev prove recovery -k made_way -s` prints the figures: a real worker with torch, a real server,
real clients, in rounds with the training and without it by turns.
"""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.protocol.commands import Cancel, Recompress
from compression import samples
from tests.fixtures.trained import collection
from tests.flows import test_idle_work as idle
from tests.flows.conftest import Site
from tests.simulators import agent_in_group
from tests.simulators.agent import running_agent
from tests.simulators.broker import RunningBroker, iotcore_broker
from tests.simulators.fleet import make_keys, operator
from tests.simulators.groups import Group, control_group

ROUNDS = 5
MINUTES = 60.0
"""More than the rounds last: the training goes on until it is cancelled."""
STAGE = "recovering"
LIBRARY = "libtorch"


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    with iotcore_broker() as running:
        yield running


@pytest.fixture
def group() -> Iterator[Group]:
    with control_group("cpuacct") as made:
        if made is None:
            pytest.skip("needs the right to make a control group")
        yield made


@asynccontextmanager
async def idle_site(folder: Path, broker: RunningBroker, group: Group) -> AsyncIterator[Site]:
    """An agent whose telemetry is not itself what keeps it busy, on a machine that others share."""
    private, keys = make_keys(folder / "keys")
    with running_agent(
        folder / "device", broker_port=broker.port, keys=keys, telemetry_interval_s="0.5",
        idle__calm_s=str(idle.CALM_S), idle__cpu_share="0.12",
        command=(agent_in_group.PATH, str(group.folder), str(group.version)),
    ) as agent:  # fmt: skip
        async with operator(broker.port, private, keys) as fleet:
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, folder)


def training(site: Site) -> psutil.Process | None:
    """The worker, once it has torch in it and says that it trains."""
    told = [e.figures.get("stage") for e in site.fleet.events if e.kind == "progress"]
    found = idle.worker(site)
    if found is None or STAGE not in told:
        return None
    with contextlib.suppress(psutil.Error):
        if any(LIBRARY in mapped.path for mapped in found.memory_maps()):
            return found
    return None


async def begin(site: Site) -> list[dict[str, Any]]:
    """The autoencoder serves, and is trained for what it lost to rounding: numbers lose some."""
    trained = collection.load("autoencoder")
    numbers = tuple(one for one in trained.outputs if one.kind == "tensor")
    calibration = site.folder / "inputs.npz"
    trained.write_inputs(calibration, 300, seed=5)
    published = await site.fleet.publish(trained.onnx, outputs=numbers, calibration=calibration)
    end = await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    assert end.state == "live", end.message
    order = Recompress(
        model="m", minutes=10, recover_minutes=MINUTES, collect_inputs=0, observe_minutes=0
    )
    reply = await site.fleet.ask(order)
    assert reply.outcome == "accepted", reply.message
    with samples.open_samples(calibration, list(published.inputs)) as held:
        return [dict(held.sample(number)) for number in range(20)]


@pytest.mark.prove
@pytest.mark.timeout(2400)
async def test_a_load_in_the_middle_of_a_training_is_made_way_for_within_a_second(
    broker: RunningBroker, tmp_path: Path, group: Group
) -> None:
    found: dict[bool, list[idle.Felt]] = {True: [], False: []}
    async with idle_site(tmp_path, broker, group) as site:
        inputs = await begin(site)
        await site.fleet.until(lambda: training(site), what="a training", within_s=1200)
        for number in range(2 * ROUNDS):
            await idle.works(site, working=True)
            process = training(site)
            assert process is not None, "it is still at it"
            beside = number % 2 == 0
            if not beside:  # as if there were no such work at all
                os.killpg(process.pid, signal.SIGSTOP)
            found[beside].append(await idle.load(site, inputs, idle.LOAD_S))
        await idle.works(site, working=True)
        assert (await site.fleet.ask(Cancel(model="m"))).outcome == "done"
    pauses = [felt.stopped_after_s for felt in found[True] if felt.stopped_after_s is not None]
    assert len(pauses) == ROUNDS, "each load was made way for"
    with_, without = (idle.Felt([ms for felt in found[key] for ms in felt.took_ms])
                      for key in (True, False))  # fmt: skip
    print(f"\n{len(with_.took_ms)} and {len(without.took_ms)} requests in {ROUNDS} rounds each")
    print(f"stopped after {', '.join(f'{each:.2f}' for each in pauses)} s")
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        a, b = with_.p(q), without.p(q)
        print(f"{name}: {a:.2f} ms with the training, {b:.2f} ms without: {a / b:.3f}")
    ratios = [a.p(0.99) / b.p(0.99) for a, b in zip(found[True], found[False], strict=True)]
    print(f"p99 round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
