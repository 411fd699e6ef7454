"""A model without inputs: the original serves, until a deployment allows what is unverified."""

from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models


async def test_a_variant_that_nothing_has_verified_serves_only_where_it_was_allowed(
    site: Site,
) -> None:
    fleet = site.fleet
    await fleet.publish(site.cnn()["model"])
    budget = Budget(size_ratio=0.6, min_agreement=0.3)
    end = await fleet.end_of(await fleet.deploy(budget=budget, collect_inputs=0))
    assert (end.state, end.message) == (
        "live", "the original serves; no calibration inputs came with it",
    )  # fmt: skip
    allowed = await fleet.deploy(budget=budget, minutes=2, allow_unverified=True)
    end = await fleet.end_of(allowed)
    assert end.state == "live", end.message
    assert end.message.endswith("serves, unverified, as was allowed: no real inputs judged it")
    live = await fleet.until(
        lambda: next((m for m in fleet.status["pole-7"].models if m.verified is False), None),
        what="status of the unverified variant",
    )
    assert live.variant != "original"
    answer = site.agent.infer("m", models.sample_inputs(site.folder / "cnn-0.onnx", 1, 9))
    assert len(answer["outputs"][0]["data"]) == 10
    page = site.agent.get("/", health=True)[1]
    assert b"(unverified)" in page
