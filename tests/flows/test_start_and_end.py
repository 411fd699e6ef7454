"""What is told while the server comes back, and how an agent starts and ends."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

from agent.wiring import ground
from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import running_agent
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import make_keys
from tests.simulators.proxy import Proxy
from tests.simulators.waiting import until


async def test_the_retained_status_is_ready_again_once_the_server_is_back(site: Site) -> None:
    await site.fleet.publish(models.mlp(site.folder / "mlp.onnx"))
    end = await site.fleet.end_of(await site.fleet.deploy(strategy="as-is"))
    assert end.state == "live", end.message
    told: list[bool] = []

    def listen() -> bool:
        status = site.fleet.status["pole-7"]
        if not told or told[-1] is not status.ready:
            told.append(status.ready)
        return told[-2:] == [False, True]

    await until(lambda: site.fleet.status["pole-7"].ready)
    for server in site.agent.children("agent.serving.server"):
        server.send_signal(signal.SIGKILL)
    await until(listen, what="a status that says ready after one that does not")


async def test_a_stalled_broker_does_not_hold_up_the_end(
    tmp_path: Path, broker: RunningBroker
) -> None:
    _, keys = make_keys(tmp_path / "keys")
    async with Proxy(broker.port) as proxy:
        device = running_agent(tmp_path / "device", broker_port=proxy.port, keys=keys)
        agent = await asyncio.to_thread(device.__enter__)
        try:
            await until(lambda: "connected to broker" in agent.log())
            proxy.stall()
            began = time.monotonic()
            held = ground.place_in(ground.MEMORY, (agent.folder / "state").resolve())
            assert held.is_dir()
            assert await asyncio.to_thread(agent.stop) == 0
            assert time.monotonic() - began < 12
            assert not held.exists()  # live inputs stay nowhere
        finally:
            device.__exit__(None, None, None)


async def test_a_long_start_asks_systemd_for_more_time(
    tmp_path: Path, broker: RunningBroker
) -> None:
    _, keys = make_keys(tmp_path / "keys")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        address = tmp_path / "notify"
        line.bind(str(address))
        os.environ["NOTIFY_SOCKET"] = str(address)
        try:
            with running_agent(tmp_path / "device", broker_port=broker.port, keys=keys):
                told = [line.recv(4096).decode().split("=")[0] for _ in range(2)]
        finally:
            del os.environ["NOTIFY_SOCKET"]
    assert told == ["EXTEND_TIMEOUT_USEC", "READY"]
