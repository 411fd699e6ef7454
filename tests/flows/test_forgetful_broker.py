"""A broker that forgets everything, or is made to: devices tell again, wait, and go on."""

import asyncio
from pathlib import Path

from agent.link.mqtt import Link
from agent.protocol.commands import Ping
from deploy import shelf
from tests.flows.conftest import Site
from tests.flows.test_faults import slow_site
from tests.simulators import models
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import operator


async def test_a_broker_that_forgot_everything_knows_the_device_again(site: Site) -> None:
    await site.fleet.publish(**site.cnn())
    await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    before = (await site.settled(),)
    site.broker.kill()
    inputs = models.sample_inputs(site.folder / "cnn-0.onnx", 1)
    assert await asyncio.to_thread(site.agent.infer, "m", inputs)
    site.broker.start()
    async with operator(site.broker.port, site.fleet.private_key, site.fleet.keys) as fresh:
        status = await fresh.until(lambda: fresh.status.get("pole-7"), what="the status again")
        assert status.online
        assert status.models == before
        assert (await fresh.ask(Ping())).outcome == "done"


async def test_chunks_that_vanish_in_the_middle_of_a_pull_are_waited_for(
    tmp_path: Path, broker: RunningBroker
) -> None:
    async with slow_site(tmp_path, broker) as (site, proxy):
        model = models.mlp(tmp_path / "big.onnx", hidden=120_000)
        published = await site.fleet.publish(model)
        proxy.bytes_per_s = 1_500_000
        deployment = await site.fleet.deploy(strategy="as-is")
        await site.fleet.event(lambda e: (e.figures or {}).get("stage") == "pull", what="a pull")
        settings = broker.settings()
        async with Link(settings, client_id="vandal", clean=True) as vandal:
            await vandal.connected(20)
            for message in await shelf.retained_under(vandal, f"{site.fleet.topics.prefix}/blob/+"):
                await vandal.publish(message.topic, b"", retain=True)
        proxy.bytes_per_s = None
        waits = await site.fleet.event(
            lambda e: "sent nothing for" in e.message, what="word that chunks are missing"
        )
        assert "missing first" in waits.message
        await site.fleet.publish(model)
        end = await site.fleet.end_of(deployment)
        assert end.state == "live", end.message
        assert (await site.settled()).sha256 == published.files.model.sha256
