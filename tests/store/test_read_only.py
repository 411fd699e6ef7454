"""A state folder that has become read-only: everything opens that must, and says what it cannot."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.control.record import Record, Records
from agent.errors import Unavailable
from agent.link.spool import Spool, Waiting
from agent.store.catalog import Catalog
from agent.store.imports import Imports
from agent.wiring.ground import own
from tests.store.test_catalog import a_manifest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts a small tmpfs")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def in_a_child(work: Callable[[], object]) -> int:
    """Run `work` in a fork, whose lock ends with it; 0 where it raised nothing."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # any of them is the answer
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_everything_opens_on_a_disk_that_has_become_read_only(disk: Path) -> None:
    state = disk / "state"
    assert in_a_child(lambda: own(state)) == 0
    Records(state / "records").save(Record(model="m"))
    Catalog(state / "models").begin(a_manifest().to_json())
    spool = Spool(state / "spool.db", most_bytes=2**20)
    spool.put("event", "t", b"before")
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    assert in_a_child(lambda: own(state)) == 0
    assert in_a_child(lambda: own(disk / "another")) == 1  # never used before: nothing to serve
    records = Records(state / "records")
    assert records.all() == ([Record(model="m")], [])
    with pytest.raises(Unavailable, match="Read-only file system"):
        records.save(Record(model="m"))
    catalog = Catalog(state / "models")
    assert [entry.name for entry in catalog.entries()] == ["mnist"]
    with pytest.raises(Unavailable, match="Read-only file system"):
        catalog.begin(a_manifest(version=2).to_json())
    assert Imports(state / "imports").orders() == []
    spool = Spool(state / "spool.db", most_bytes=2**20)
    spool.put("reply", "t", b"still answered")
    got: list[bytes] = []

    async def publish(message: Waiting) -> None:
        got.append(message.payload)

    asyncio.run(spool.drain(publish))
    assert b"still answered" in got
