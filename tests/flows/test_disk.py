"""A disk that is full or has become read-only: what serves goes on serving, and says why."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.protocol.commands import Deploy, Ping
from agent.protocol.events import Event
from tests.flows.conftest import Site
from tests.simulators import models
from tests.simulators.agent import running_agent, until
from tests.simulators.broker import RunningBroker
from tests.simulators.fleet import make_keys, operator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small tmpfs")
SIZE_MIB = 16
LEFT_KIB = (0, 4, 12, 40, 100, 200, 400, 700, 1000, 1500)
"""From nothing at all to room for the files and not for what is written beside them."""


@dataclass
class SmallDisk:
    """A tmpfs that a test may fill and make read-only."""

    folder: Path

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def fill(self, left_kib: int) -> None:
        """Leave so much."""
        stat = os.statvfs(self.folder)
        take = stat.f_bavail * stat.f_frsize - left_kib * 1024
        with (self.folder / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, take)

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@asynccontextmanager
async def a_site(disk: SmallDisk, broker: RunningBroker, folder: Path) -> AsyncIterator[Site]:
    private, keys = make_keys(folder / "keys")
    with running_agent(
        folder / "device", broker_port=broker.port, keys=keys, disk_reserve_mib="0",
        state_dir=str(disk.folder / "state"),
    ) as agent:  # fmt: skip
        async with operator(broker.port, private, keys) as fleet:
            await fleet.until(lambda: fleet.status.get("pole-7"), what="status of the device")
            yield Site(broker, agent, fleet, folder)


async def go_live(site: Site, version: int) -> None:
    """Publish a version, and deploy it on a disk that has room."""
    site.fleet.events.clear()
    await site.fleet.publish(**site.cnn(seed=version), version=version)
    end = await site.fleet.end_of(await site.fleet.deploy(version=version, strategy="as-is"))
    assert end.state == "live", end.message


def serves(site: Site, version: int) -> bool:
    inputs = models.sample_inputs(site.folder / f"cnn-{version}.onnx", 1)
    return bool(site.agent.infer("m", inputs)["model_version"] == str(version))


@needs_root
async def test_a_disk_that_has_become_read_only_is_served_from_until_it_is_mended(
    disk: SmallDisk, broker: RunningBroker, tmp_path: Path
) -> None:
    async with a_site(disk, broker, tmp_path) as site:
        await go_live(site, 1)
        await site.fleet.publish(**site.cnn(seed=2), version=2)
        site.agent.kill()
        disk.remount("ro")
        site.agent.start()
        await asyncio.to_thread(until, lambda: site.agent.ready() or None, what="agent ready")
        assert serves(site, 1)
        # Answers wait in memory where no disk takes them.
        assert (await site.fleet.ask(Ping())).outcome == "done"
        refused = await site.fleet.ask(Deploy(model="m", version=2))
        assert refused.outcome == "refused"
        assert "Read-only file system" in refused.message
        assert serves(site, 1)
        site.agent.kill()
        disk.remount("rw")
        site.agent.start()
        await asyncio.to_thread(until, lambda: site.agent.ready() or None, what="agent ready")
        await go_live(site, 2)
        assert serves(site, 2)


def _is_told(event: Event) -> bool:
    return event.message.startswith("waiting") or event.state == "live"


async def through_a_full_disk(site: Site, disk: SmallDisk, version: int, left_kib: int) -> str:
    """Deploy on a full disk, give the room back; what was told meanwhile."""
    await site.fleet.publish(**site.cnn(seed=version), version=version)
    disk.fill(left_kib)
    site.fleet.events.clear()
    try:
        deployment = await site.fleet.deploy(version=version, strategy="as-is")
        await site.fleet.until(
            lambda: deployment in site.fleet.replies or None, what="an answer on a full disk"
        )
        reply = site.fleet.replies[deployment]
        if reply.outcome == "accepted":
            told = (await site.fleet.event(_is_told, what="why it waits")).message
        else:
            told = reply.message
        assert serves(site, version - 1) or "live" in {e.state for e in site.fleet.events}
    finally:
        disk.free()
    if reply.outcome != "accepted":
        deployment = await site.fleet.deploy(version=version, strategy="as-is")
    end = await site.fleet.end_of(deployment)
    assert end.state == "live", end.message
    assert serves(site, version)
    return told


@needs_root
@pytest.mark.parametrize(
    "left", [LEFT_KIB[2:3], pytest.param(LEFT_KIB, marks=pytest.mark.prove)], ids=["one", "all"]
)
async def test_on_a_full_disk_it_waits_says_why_and_goes_on_when_there_is_room(
    disk: SmallDisk, broker: RunningBroker, tmp_path: Path, left: tuple[int, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with a_site(disk, broker, tmp_path) as site:
        await go_live(site, 1)
        for version, left_kib in enumerate(left, start=2):
            told = await through_a_full_disk(site, disk, version, left_kib)
            with capsys.disabled():
                print(f"\n  {left_kib:5} KiB left: {told[:110]}")
