"""Load begins in the middle of work that can wait: what those who ask feel of it, and how long.

`./dev prove flows -k idle_work -s` prints the figures. The device is a control group, so that what
others do on this machine is no load of it (though everybody feels that in the figures).
"""

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.protocol.commands import Cancel, Recompress
from agent.protocol.events import IdleWork
from compression import samples
from tests.fixtures.trained import collection
from tests.flows.conftest import Site
from tests.flows.test_no_inputs_at_all import post
from tests.simulators import agent_in_group
from tests.simulators.agent import running_agent
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import make_keys, operator
from tests.simulators.groups import Group, control_group

ROUNDS = 5
LOAD_S = 15.0
CLIENTS = 2
CALM_S = 8.0
WORKER = "compression.worker"


@dataclass
class Felt:
    """What clients felt, in milliseconds, and when the worker was seen to have stopped."""

    took_ms: list[float] = field(default_factory=list)
    stopped_after_s: float | None = None

    def p(self, q: float) -> float:
        return statistics.quantiles(self.took_ms, n=1000)[round(q * 1000) - 1]


@asynccontextmanager
async def idle_site(folder: Path, broker: RunningBroker, group: Group) -> AsyncIterator[Site]:
    private, keys = make_keys(folder / "keys")
    with running_agent(
        folder / "device", broker_port=broker.port, keys=keys, idle__calm_s=str(CALM_S),
        idle__cpu_share="0.05",  # on a machine that others keep busy no load gets much
        telemetry_interval_s="0.2",
        command=(agent_in_group.PATH, str(group.folder), str(group.version)),
    ) as agent:  # fmt: skip
        async with operator(broker.port, private, keys) as fleet:
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, folder)


async def works(site: Site, *, working: bool, within_s: float = 120.0) -> IdleWork:
    """Wait until telemetry says so."""
    site.fleet.telemetry.clear()

    def said() -> IdleWork | None:
        told = site.fleet.telemetry[-1].idle_work if site.fleet.telemetry else ()
        return next((work for work in told if work.working is working), None)

    return await site.fleet.until(said, what=f"work that goes on: {working}", within_s=within_s)


def worker(site: Site) -> psutil.Process | None:
    return next(iter(site.agent.children(WORKER)), None)


async def load(site: Site, inputs: list[dict[str, np.ndarray]], seconds: float) -> Felt:
    """Clients that ask without a pause; meanwhile it is seen when the worker stops."""
    felt, began_s = Felt(), time.monotonic()

    async def watch() -> None:
        process = worker(site)
        while process is not None and felt.stopped_after_s is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.status() == psutil.STATUS_STOPPED:
                    felt.stopped_after_s = time.monotonic() - began_s
            await asyncio.sleep(0.01)

    def ask(count: int) -> None:
        while time.monotonic() < began_s + seconds:
            at_s = time.perf_counter()
            assert post(site.agent, inputs[count % len(inputs)]) == 200
            felt.took_ms.append((time.perf_counter() - at_s) * 1e3)
            count += 1

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(asyncio.to_thread(ask, 7 * client) for client in range(CLIENTS)))
    watching.cancel()
    return felt


async def begin(site: Site) -> list[dict[str, np.ndarray]]:
    """The keyword model serves; work on it that lasts begins."""
    trained = collection.load("keywords")
    calibration = site.folder / "inputs.npz"
    trained.write_inputs(calibration, 300, seed=5)
    published = await site.fleet.publish(
        trained.onnx, outputs=trained.outputs, calibration=calibration
    )
    end = await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    assert end.state == "live", end.message
    order = Recompress(
        model="m", minutes=60, collect_inputs=0, observe_minutes=0,
        recover_minutes=float(os.environ.get("TRIMTAB_TEST_RECOVER_MINUTES", "0")),
    )  # fmt: skip
    reply = await site.fleet.ask(order)
    assert reply.outcome == "accepted", reply.message
    with samples.open_samples(calibration, list(published.inputs)) as held:
        return [dict(held.sample(number)) for number in range(20)]


@pytest.fixture
def group() -> Iterator[Group]:
    with control_group("cpuacct") as made:
        if made is None:
            pytest.skip("needs the right to make a control group")
        yield made


@pytest.mark.prove
@pytest.mark.timeout(1200)
async def test_a_load_in_the_middle_of_idle_work_is_made_way_for_within_a_second(
    broker: RunningBroker, tmp_path: Path, group: Group
) -> None:
    found: dict[bool, list[Felt]] = {True: [], False: []}
    stages: list[str] = []
    async with idle_site(tmp_path, broker, group) as site:
        inputs = await begin(site)
        for number in range(2 * ROUNDS):
            beside = number % 2 == 0
            await works(site, working=True)
            process = worker(site)
            assert process is not None
            if not beside:  # as if there were no such work at all
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGSTOP)
            told = [e.figures.get("stage") for e in site.fleet.events if e.kind == "progress"]
            stages.append(str(next((s for s in reversed(told) if s != "idle"), "")))
            found[beside].append(await load(site, inputs, LOAD_S))
            told_after = site.fleet.telemetry[-1].idle_work
            assert "of the processor" in told_after[0].because, told_after
        await works(site, working=True)
        assert (await site.fleet.ask(Cancel(model="m"))).outcome == "done"
    with_, without = ([ms for felt in found[key] for ms in felt.took_ms] for key in (True, False))
    pauses = [felt.stopped_after_s for felt in found[True] if felt.stopped_after_s is not None]
    assert len(pauses) == ROUNDS, "each load was made way for"
    ratios = [a.p(0.99) / b.p(0.99) for a, b in zip(found[True], found[False], strict=True)]
    print(f"\n{len(with_)} and {len(without)} requests in {ROUNDS} rounds each")
    print(f"stopped after {', '.join(f'{each:.2f}' for each in pauses)} s; it was at {stages[::2]}")
    for name, q in (("p50", 0.5), ("p99", 0.99)):
        a, b = Felt(with_).p(q), Felt(without).p(q)
        print(f"{name}: {a:.2f} ms with the work, {b:.2f} ms without: {a / b:.3f}")
    print(f"p99 round by round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
