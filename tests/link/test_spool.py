"""The spool: what it keeps, what it drops first, and what a kill or a bad disk leaves."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import BadInput, Refused, Unavailable
from agent.link.spool import Kind, Loss, Spool, Waiting

KINDS: list[Kind] = ["telemetry", "event", "reply"]
MIB = 2**20


async def drained(spool: Spool) -> list[bytes]:
    got: list[bytes] = []

    async def publish(message: Waiting) -> None:
        got.append(message.payload)

    await spool.drain(publish)
    return got


async def test_sends_oldest_first_and_is_empty_then(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    for n in range(50):
        spool.put(KINDS[n % 3], f"t/{n}", b"%d" % n)
    assert await drained(spool) == [b"%d" % n for n in range(50)]
    assert len(spool) == 0
    assert spool.waiting_bytes == 0
    assert spool.dropped == 0


@settings(max_examples=60, deadline=None)
@given(
    puts=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 400)), max_size=40),
    most_bytes=st.integers(0, 4000),
)
def test_over_the_bound_the_oldest_telemetry_goes_first_then_events_and_replies_never(
    puts: list[tuple[Kind, int]], most_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a model: a list that is cut down by the rule after each put."""

    def size(item: tuple[int, Kind, int]) -> int:
        return item[2] + len("t") + 64

    spool = Spool(tmp_path_factory.mktemp("s") / "spool.db", most_bytes=most_bytes)
    model: list[tuple[int, Kind, int]] = []
    dropped = 0
    for number, (kind, length) in enumerate(puts):
        spool.put(kind, "t", number.to_bytes(2, "big") + bytes(length))
        model.append((number, kind, length + 2))
        for victim_kind in ("telemetry", "event"):
            while sum(map(size, model)) > most_bytes:
                victim = next((item for item in model if item[1] == victim_kind), None)
                if victim is None:
                    break
                model.remove(victim)
                dropped += 1
    assert spool.dropped == dropped
    assert spool.waiting_bytes == sum(map(size, model))
    kept = asyncio.run(drained(spool))
    assert [int.from_bytes(payload[:2], "big") for payload in kept] == [n for n, _, _ in model]
    spool.close()


async def test_what_was_not_acknowledged_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    for n in range(20):
        spool.put("event", "t", b"%d" % n)
    acknowledged: list[bytes] = []

    async def publish(message: Waiting) -> None:
        if len(acknowledged) == 5:
            raise Unavailable("cannot publish: gone")
        acknowledged.append(message.payload)

    with pytest.raises(Unavailable, match="gone"):
        await spool.drain(publish)
    assert len(spool) == 15
    assert await drained(spool) == [b"%d" % n for n in range(5, 20)]


async def test_a_message_that_the_broker_never_takes_does_not_block_the_rest(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    spool.put("event", "t", b"too large")
    spool.put("event", "t", b"fine")
    sent: list[bytes] = []

    async def publish(message: Waiting) -> None:
        if message.payload == b"too large":
            raise BadInput("cannot publish: too large")
        sent.append(message.payload)

    assert await spool.drain(publish) == 1
    assert sent == [b"fine"]
    assert (len(spool), spool.dropped) == (0, 1)


async def test_an_expired_reply_is_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB, clock=lambda: 150.0)
    spool.put("reply", "t", b"late", expires_at_s=100.0)
    spool.put("reply", "t", b"in time", correlation=b"c", expires_at_s=200.0)
    assert await drained(spool) == [b"in time"]
    assert spool.dropped == 1


async def test_keeps_draining_as_messages_come_and_the_link_goes(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    online = asyncio.Event()
    got: list[bytes] = []
    everything = asyncio.Event()

    async def publish(message: Waiting) -> None:
        if message.payload == b"first" and not got:
            got.append(b"lost once")
            raise Unavailable("cannot publish: gone")
        got.append(message.payload)
        if {b"first", b"second"} <= set(got):
            everything.set()

    async def until_online() -> None:
        await online.wait()

    draining = asyncio.create_task(spool.keep_draining(publish, online=until_online))
    spool.put("event", "t", b"first")
    await asyncio.sleep(0)
    assert got == []
    online.set()
    spool.put("event", "t", b"second")
    await asyncio.wait_for(everything.wait(), 10)
    draining.cancel()
    assert got[0] == b"lost once"
    assert len(spool) == 0


def test_the_file_shrinks_after_the_worst_day(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, most_bytes=8 * MIB)
    for _ in range(40):
        spool.put("telemetry", "t", bytes(100_000))
    asyncio.run(drained(spool))
    spool.close()
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 200_000


_WRITER = """
import sys
from pathlib import Path
from agent.link.spool import Spool
spool = Spool(Path(sys.argv[1]), most_bytes=10**9)
n = 0
while True:
    spool.put("event", "t", b"%d " % n + bytes(3000))
    n += 1
    print(n, flush=True)
"""


@pytest.mark.parametrize("puts", [1, 17, 60])
def test_what_was_put_survives_a_kill_in_the_middle_of_writing(puts: int, tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    said = 0
    while said < puts:
        said = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    said = max([said, *map(int, rest)])
    spool = Spool(path, most_bytes=10**9)
    numbers = [int(payload.split(b" ")[0]) for payload in asyncio.run(drained(spool))]
    assert numbers[:said] == list(range(said))
    assert len(numbers) <= said + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"not a database at all" * 100,
        lambda data: data[:5000],
        lambda data: data[:100] + b"\xff" * 4000 + data[4100:],
        lambda data: data[:4096] + bytes(4096) + data[8192:],
    ],
    ids=["alien", "truncated", "header pages", "a zeroed page"],
)
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, most_bytes=MIB)
    for _ in range(30):
        spool.put("event", "t", b"x" * 1000)
    spool.close()
    path.write_bytes(damage(path.read_bytes()))
    spool = Spool(path, most_bytes=MIB)
    spool.put("event", "t", b"goes on")
    assert await drained(spool) == [b"goes on"]
    assert "set aside as spool.db.corrupt" in caplog.text
    assert (tmp_path / "spool.db.corrupt").exists()


async def test_a_file_that_is_damaged_while_it_is_used_is_replaced_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path, most_bytes=4 * MIB)
    for _ in range(200):
        spool.put("event", "t", b"x" * 4000)
    # What sqlite still holds in its log is flushed, so that it must read the file again.
    other = sqlite3.connect(path)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    other.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    got: list[bytes] = []
    arrived = asyncio.Event()

    async def publish(message: Waiting) -> None:
        got.append(message.payload)
        arrived.set()

    async def online() -> None:
        await asyncio.sleep(0)

    draining = asyncio.create_task(spool.keep_draining(publish, online=online))
    while "begun anew" not in caplog.text:
        await asyncio.sleep(0.01)
    got.clear()
    arrived.clear()
    spool.put("event", "t", b"goes on")
    await asyncio.wait_for(arrived.wait(), 10)
    draining.cancel()
    assert got == [b"goes on"]


async def test_somebody_elses_database_is_set_aside_too(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE waiting (something TEXT)")
    other.commit()
    other.close()
    spool = Spool(path, most_bytes=MIB)
    spool.put("event", "t", b"x")
    assert await drained(spool) == [b"x"]


async def test_where_no_file_can_be_made_messages_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool.db", most_bytes=MIB)
    assert "cannot open the spool" in caplog.text
    spool.put("reply", "t", b"x")
    assert await drained(spool) == [b"x"]
    assert (len(spool), spool.dropped) == (0, 0)


@pytest.mark.parametrize("trouble", ["full", "read-only"])
async def test_on_a_disk_that_takes_nothing_more_nothing_is_lost_and_nothing_sent_twice(
    trouble: str, tmp_path: Path
) -> None:
    """The disk fills up, or goes read-only, while messages wait in the file."""
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    spool.put("event", "t", b"before")
    assert spool._file is not None
    database = spool._file._database
    if trouble == "full":
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
    else:
        database.execute("PRAGMA query_only = ON")
    for number in range(40):
        spool.put("event", "t", b"%d" % number + bytes(1000))
    got = [payload.rstrip(b"\0") for payload in await drained(spool)]
    assert sorted(got) == sorted([b"before", *(b"%d" % number for number in range(40))])
    assert await drained(spool) == []
    assert len(spool) == 0


def test_memory_is_bounded_too_and_its_losses_are_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "spool.db", most_bytes=8 * MIB)
    for _ in range(100):
        spool.put("telemetry", "t", bytes(10_000))
    assert spool.waiting_bytes <= 256 * 1024
    assert len(spool) + spool.dropped == 100


async def test_what_was_dropped_is_told_once_with_its_kind_and_its_time(tmp_path: Path) -> None:
    now_s = 0.0
    path = tmp_path / "spool.db"
    spool = Spool(path, most_bytes=3000, clock=lambda: now_s)
    for minute in range(10):
        now_s = minute * 60.0
        spool.put("telemetry", "t", bytes(800))
    spool.put("reply", "t", bytes(2500))
    spool.close()
    spool = Spool(path, most_bytes=3000, clock=lambda: now_s)  # the count outlives a restart
    assert spool.losses() == [Loss("telemetry", 10, 0.0, 540.0)]
    assert spool.losses() == []
    spool.put("event", "t", bytes(800))
    assert spool.losses() == [Loss("event", 1, 540.0, 540.0)]
    assert spool.dropped == 11


async def test_what_the_broker_will_never_take_does_not_hold_up_the_rest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", most_bytes=MIB)
    spool.put("reply", "t/forbidden", b"x")
    spool.put("event", "t/event", b"y")
    sent: list[str] = []

    async def publish(message: Waiting) -> None:
        if message.topic == "t/forbidden":
            raise Refused("cannot publish to t/forbidden: not authorized")
        sent.append(message.topic)

    await spool.drain(publish)
    assert (sent, len(spool), spool.dropped) == (["t/event"], 0, 1)
