"""No calibration file at all: the device collects what it is asked, then improves by itself."""

import asyncio
import contextlib
import http.client
import json
import time
from pathlib import Path

import numpy as np
import pytest

from agent import outputs
from agent.protocol.commands import Forget
from compression import samples
from compression.job import Budget, InputSpec, OutputSpec
from tests.fixtures import more
from tests.fixtures.trained import collection
from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import RunningAgent

TYPES = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}


def post(agent: RunningAgent, inputs: dict[str, np.ndarray]) -> int:
    """One request with binary tensors; its status."""
    heads = [
        {"name": name, "shape": list(array.shape), "datatype": TYPES[str(array.dtype)],
         "parameters": {"binary_data_size": array.nbytes}}
        for name, array in inputs.items()
    ]  # fmt: skip
    head = json.dumps({"inputs": heads, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(array.tobytes() for array in inputs.values())
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=60)
    with contextlib.closing(connection):
        length = {"Inference-Header-Content-Length": str(len(head))}
        connection.request("POST", "/v2/models/m/infer", body, length)
        answer = connection.getresponse()
        answer.read()
        return answer.status


async def asking(
    agent: RunningAgent, fixture: Path, specs: list[InputSpec], *, stop: asyncio.Event,
    first_s: list[float], began_s: float,
) -> int:  # fmt: skip
    """A live client that asks without a pause, every input in turn; how often."""
    asked = 0
    with samples.open_samples(fixture, specs) as held:
        while not stop.is_set():
            status = await asyncio.to_thread(post, agent, held.sample(asked % len(held)))
            if status == 200:
                asked += 1
                if not first_s:
                    first_s.append(time.monotonic() - began_s)
            else:
                await asyncio.sleep(0.05)  # nothing serves yet
    return asked


async def improve(
    site: Site, model: Path, live: Path, *, meaning: tuple[OutputSpec, ...], agreement: float,
    minutes: float, collect: int,
) -> None:  # fmt: skip
    published = await site.fleet.publish(model, outputs=meaning)
    began_s = time.monotonic()
    stop, first_s = asyncio.Event(), list[float]()
    client = asyncio.create_task(
        asking(
            site.agent, live, list(published.inputs), stop=stop, first_s=first_s, began_s=began_s
        )
    )
    deployment = await site.fleet.deploy(
        budget=Budget(size_ratio=0.5, min_agreement=agreement), minutes=minutes,
        collect_inputs=collect, collect_minutes=0.2, observe_minutes=3, observe_requests=60,
    )  # fmt: skip
    end = await site.fleet.end_of(deployment, within_s=60 * minutes + 900)
    stop.set()
    asked = await client
    collected = next(e for e in site.fleet.events if e.state == "compressing")
    observed = [e.figures for e in site.fleet.events if e.kind == "observed"]
    print(f"\n{model.stem}: first answer after {first_s[0]:.1f} s; {asked} answers in all")
    print(f"  {collected.message}\n  {end.message}\n  {observed}")
    print(f"  {time.monotonic() - began_s:.0f} s from the command to its end")
    assert end.state == "live"
    assert "live inputs of" in collected.message
    live_now = await site.settled()
    assert live_now.variant != "original", end.message
    assert live_now.verified is not False
    assert observed[-1]["keep"] is True
    assert observed[-1]["agreement"] >= agreement - 0.05
    reply = await site.fleet.ask(Forget(model="m"))
    assert reply.message == f"{collect} inputs of m are deleted"
    assert not list(site.folder.rglob("*.sample"))


@pytest.mark.timeout(400)
async def test_a_small_model_without_inputs_is_improved_by_what_it_is_asked(site: Site) -> None:
    model = models.cnn(site.folder / "cnn.onnx")
    live = site.folder / "live.npz"
    np.savez(live, **models.sample_inputs(model, 300, 5))
    await improve(site, model, live, meaning=(), agreement=0.7, minutes=2, collect=60)


@pytest.mark.prove
async def test_the_recogniser_is_improved_without_any_file(site: Site) -> None:
    fixture = more.recogniser()
    await improve(
        site, fixture.onnx, fixture.evaluation, meaning=outputs.read([fixture.outputs]),
        agreement=0.95, minutes=6, collect=100,
    )  # fmt: skip


@pytest.mark.prove
async def test_the_detector_is_improved_without_any_file(site: Site) -> None:
    trained = collection.load("detector")
    live = site.folder / "live.npz"
    trained.write_inputs(live, 300, seed=77)
    await improve(
        site, trained.onnx, live, meaning=trained.outputs, agreement=0.95, minutes=4, collect=100
    )
