"""A device too busy for its worker: the minutes end, and the best that was found by then serves."""

import asyncio
import signal
from pathlib import Path

import numpy as np
import pytest

from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_where_the_worker_starves_the_best_so_far_is_judged_and_serves(site: Site) -> None:
    model = models.mlp(site.folder / "mlp.onnx", hidden=2000)
    files: dict[str, Path] = {}
    for seed, file in enumerate(("calibration", "evaluation")):
        files[file] = site.folder / f"{file}.npz"
        np.savez(files[file], **models.sample_inputs(model, 60, seed))
    await site.fleet.publish(model, **files)
    deployment = await site.fleet.deploy(
        strategy="compress-first", budget=Budget(size_ratio=0.6, min_agreement=0.5), minutes=0.5
    )
    found = await site.fleet.until(
        lambda: next((e for e in site.fleet.events if e.kind == "tried"
                      and e.figures.get("accepted") and e.figures["label"] != "original"), None),
        what="the first variant", within_s=120,
    )  # fmt: skip
    # From now on all processors are others'.
    workers = await asyncio.to_thread(site.agent.children, "compression.worker")
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    end = await site.fleet.end_of(deployment, within_s=240)
    left = [e.message for e in site.fleet.events if e.kind == "tried"][-1]
    print(f"\nfound {found.figures['label']!r}; then: {left}; {end.state}: {end.message}")
    assert workers, "it was still at work"
    assert end.state == "live", end.message
    assert "had the processor for" in left
    live = await site.settled()
    assert (live.meets_budget, live.verified) == (True, True)
    assert live.variant in {e.figures.get("label") for e in site.fleet.events if e.kind == "tried"}
    assert not any(worker.is_running() for worker in workers)
