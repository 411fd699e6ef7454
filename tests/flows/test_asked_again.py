"""What serves is asked over the broker, given another budget and made anew, by real processes."""

import asyncio

from agent.protocol.commands import Infer, Recompress, SetBudget
from compression.job import Budget
from tests.flows.conftest import Site
from tests.simulators import models


async def test_another_budget_is_met_by_what_is_here_and_nothing_worse_is_made(site: Site) -> None:
    fleet = site.fleet
    await fleet.publish(**site.cnn())
    small = Budget(size_ratio=0.6, min_agreement=0.5)
    end = await fleet.end_of(await fleet.deploy(budget=small, minutes=2))
    assert end.state == "live", end.message
    swapped = [e.figures["sha256"] for e in fleet.events if e.kind == "swapped"]
    assert len(swapped) == 2

    async def done(order: SetBudget | Recompress) -> str:
        reply = await fleet.ask(order)
        assert reply.outcome == "accepted", reply.message
        ended = await fleet.end_of(reply.id)
        assert ended.state == "live", ended.message
        return ended.message

    fleet.events.clear()
    wide = SetBudget(model="m", budget=Budget(size_ratio=2), observe_minutes=0)
    assert "serves" in await done(wide)
    assert "serves" in await done(wide.model_copy(update={"budget": small}))
    assert "tried" not in {event.kind for event in fleet.events}, "nothing was made for it"
    again = Recompress(model="m", when="now", minutes=1, collect_inputs=0, observe_minutes=0)
    message = await done(again)
    assert "serves already" in message or "cannot better m@1" in message
    live = await fleet.until(
        lambda: next((m for m in fleet.status["pole-7"].models if m.state == "live"), None),
        what="the status of what serves",
    )
    assert live.sha256 == swapped[-1], "the same file as before all that"
    assert live.meets_budget


async def test_a_small_request_is_answered_over_the_broker(site: Site) -> None:
    fleet = site.fleet
    nobody = await fleet.ask(Infer(model="m", request={"inputs": []}))
    assert nobody.outcome == "refused"
    assert "cannot find model 'm'" in nobody.message
    model = models.mlp(site.folder / "mlp.onnx")
    await fleet.publish(model)
    await fleet.end_of(await fleet.deploy(strategy="as-is"))
    inputs = models.sample_inputs(model, 1)
    tensors = [
        {"name": name, "shape": list(array.shape), "datatype": "FP32",
         "data": array.ravel().tolist()}
        for name, array in inputs.items()
    ]  # fmt: skip
    told = await fleet.ask(Infer(model="m", request={"inputs": tensors}))
    assert told.outcome == "done", told.message
    here = await asyncio.to_thread(site.agent.infer, "m", inputs)
    assert told.result["outputs"] == here["outputs"]
    wrong = await fleet.ask(Infer(model="m", version=2, request={"inputs": tensors}))
    assert (wrong.outcome, "version 1 is live" in wrong.message) == ("refused", True)
    binary = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    no_json = await fleet.ask(Infer(model="m", request=binary))
    assert (no_json.outcome, "ask for JSON" in no_json.message) == ("refused", True)
    many = {"inputs": [tensors[0] | {"shape": [350, 8], "data": [0] * 2800}]}
    too_long = await fleet.ask(Infer(model="m", request=many))
    assert too_long.outcome == "refused"
    assert "at most 8192" in too_long.message
