"""Publish, pull over MQTT, the original live, compress, admit, switch, serve, report."""

import numpy as np

from agent.protocol.commands import Describe, Ping, Remove
from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models


async def test_a_model_travels_the_whole_way(site: Site) -> None:
    fleet, agent = site.fleet, site.agent
    await fleet.publish(**site.cnn())
    deployment = await fleet.deploy(budget=Budget(size_ratio=0.6, min_agreement=0.5), minutes=2)
    end = await fleet.end_of(deployment)
    assert end.state == "live", end.message
    swaps = [e.figures["label"] for e in fleet.events if e.kind == "swapped"]
    assert swaps[0] == "original"
    assert len(swaps) == 2

    live = await fleet.until(
        lambda: next((m for m in fleet.status["pole-7"].models if m.state == "live"), None),
        what="status of the live model",
    )
    assert live.variant == swaps[1]
    assert live.meets_budget is True
    runs = next(e for e in fleet.events if e.kind == "swapped" and e.figures["label"] == swaps[1])
    assert live.sha256 == runs.figures["sha256"]

    inputs = models.sample_inputs(site.folder / "cnn-0.onnx", 3, 9)
    for _ in range(20):
        answer = agent.infer("m", inputs)
    assert answer["model_version"] == "1"
    assert np.isfinite(answer["outputs"][0]["data"]).all()
    told = await fleet.until(
        lambda: next((m for t in fleet.telemetry for m in t.models if m.requests >= 1), None),
        what="telemetry of requests",
    )
    assert told.latency_ms.count == told.requests
    assert told.joules_per_inference > 0
    assert told.energy_method.startswith("modelled: CPU seconds x")

    status, metrics = agent.get("/metrics", health=True)
    assert status == 200
    assert b"trimtab_inference" in metrics


async def test_commands_are_answered(site: Site) -> None:
    pong = await site.fleet.ask(Ping())
    assert (pong.outcome, pong.device) == ("done", "pole-7")
    told = await site.fleet.ask(Describe())
    assert told.result["profile"]["cores"] >= 1
    assert told.result["default_budget"]["min_agreement"] == 0.98
    nothing = await site.fleet.ask(Remove(model="nobody"))
    assert (nothing.outcome, nothing.message) == (
        "refused", "cannot remove nobody: it is not deployed here",
    )  # fmt: skip


async def test_a_second_version_replaces_the_first_and_remove_ends_both(site: Site) -> None:
    fleet = site.fleet
    for version in (1, 2):
        await fleet.publish(**site.cnn(version), version=version)
        end = await fleet.end_of(await fleet.deploy(version=version, strategy="as-is"))
        assert end.state == "live", end.message
    inputs = models.sample_inputs(site.folder / "cnn-2.onnx", 1, 0)
    assert site.agent.infer("m", inputs)["model_version"] == "2"
    assert (await fleet.ask(Remove(model="m"))).outcome == "done"
    assert site.agent.get("/v2/models/m")[0] == 404
