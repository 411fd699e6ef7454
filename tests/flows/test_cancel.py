"""`cancel` in each state: how long until the deployment rests, by what the agent itself tells.

`./dev prove flows -k cancel -s` prints the table.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.control.states import WORKING
from agent.protocol.commands import Cancel
from compression.job import Budget
from tests.flows.conftest import Site
from tests.flows.test_faults import slow_site
from tests.simulators import models
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import RESTS
from tests.simulators.proxy import Proxy

SMALLER = {"budget": Budget(size_ratio=0.6, min_agreement=0.5), "minutes": 1}
Deploy = Callable[[Site, Proxy, str], Awaitable[str]]


def with_inputs(site: Site, name: str, *, evaluation: bool = False) -> dict[str, Any]:
    """A model with calibration inputs, and others to evaluate by where they are asked for."""
    # Those that load while they are cancelled take 40 MB: else it would be over before.
    hidden = 800_000 if name in {"switching", "restoring"} else 2000
    model = models.mlp(site.folder / f"{name}.onnx", hidden=hidden)
    files: dict[str, Any] = {"model": model, "name": name}
    for number, file in enumerate(["calibration", "evaluation"][: 1 + evaluation]):
        files[file] = site.folder / f"{name}-{file}.npz"
        np.savez(files[file], **models.sample_inputs(model, 60, number))
    return files


async def unpublished(site: Site, proxy: Proxy, name: str) -> str:
    del proxy
    return await site.fleet.deploy(model=name)


async def over_a_thin_line(site: Site, proxy: Proxy, name: str) -> str:
    model = models.mlp(site.folder / f"{name}.onnx", hidden=200_000)
    await site.fleet.publish(model, name=name)
    proxy.bytes_per_s = 300_000
    return await site.fleet.deploy(model=name)


async def whole(site: Site, proxy: Proxy, name: str) -> str:
    proxy.bytes_per_s = None
    await site.fleet.publish(**with_inputs(site, name, evaluation=name == "trying"))
    return await site.fleet.deploy(model=name, **SMALLER, observe_minutes=5)


async def without_inputs(site: Site, proxy: Proxy, name: str) -> str:
    proxy.bytes_per_s = None
    await site.fleet.publish(models.mlp(site.folder / f"{name}.onnx"), name=name)
    return await site.fleet.deploy(model=name)


async def observed(site: Site, proxy: Proxy, name: str) -> str:
    """Cancelled while it is observed: then it is on its way back."""
    deployment = await whole(site, proxy, name)
    await until_in("observing", site, deployment)
    await site.fleet.ask(Cancel(model=name))
    return deployment


CASES: dict[str, Deploy] = {
    "verifying": unpublished,
    "fetching": over_a_thin_line,
    "starting": whole,
    "collecting": without_inputs,
    "compressing": whole,
    "trying": whole,
    "switching": whole,
    "observing": whole,
    "restoring": observed,
}


async def until_in(state: str, site: Site, deployment: str) -> None:
    """Wait until a deployment is in a state."""
    fleet = site.fleet
    await fleet.until(
        lambda: next((e for e in fleet.events if e.deployment == deployment and e.state == state),
                     None), what=f"{state}", within_s=300,
    )  # fmt: skip


async def cancelled_in(site: Site, proxy: Proxy, state: str) -> tuple[float, str]:
    """Seconds from the command to the end, and what is said at the end."""
    fleet = site.fleet
    deployment = await CASES[state](site, proxy, state)
    await until_in(state, site, deployment)
    asked_s = time.time()
    reply = await fleet.ask(Cancel(model=state))
    assert reply.outcome == "done", reply.message
    end = await fleet.end_of(deployment)
    assert end.state in RESTS
    assert end.message.startswith("cancelled by command")
    return end.at_s - asked_s, f"{end.state}: {end.message}"


async def cancelled_at_rest(site: Site, model: str) -> tuple[float, str]:
    """Seconds until it is said that nothing is under way."""
    asked_s = time.time()
    reply = await site.fleet.ask(Cancel(model=model))
    assert reply.outcome == "refused"
    return time.time() - asked_s, f"{reply.outcome}: {reply.message}"


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_cancel_in_each_state(tmp_path: Path, broker: RunningBroker) -> None:
    assert set(CASES) == set(WORKING)
    async with slow_site(tmp_path, broker) as (site, proxy):
        table = {state: await cancelled_in(site, proxy, state) for state in CASES}
        table |= {f"at rest, {end}": await cancelled_at_rest(site, model)
                  for end, model in (("live", "observing"), ("failed", "verifying"))}  # fmt: skip
        status = site.fleet.status["pole-7"]
        live = {m.name: m.variant for m in status.models if m.sha256}
    print()
    for state, (seconds, said) in table.items():
        print(f"  {state:15} {seconds:6.2f} s  {said}")
    serving = set(CASES) - {"verifying", "fetching", "starting"}
    assert {name for name, variant in live.items() if variant == "original"} >= serving
    slow = {state: seconds for state, (seconds, _) in table.items() if seconds > 2}
    if slow:
        print(f"  longer than two seconds: {slow}")
