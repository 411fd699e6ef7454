"""A broker gone for 30 days, by a clock that is turned: reports are complete, or say what is not.

The spool, the reporter and the link are the real ones; only the time is made up.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.control.announcer import Announcer
from agent.device import energy
from agent.link.messages import Message
from agent.link.mqtt import Link
from agent.link.spool import Spool, Waiting
from agent.protocol.events import Event, Telemetry
from agent.telemetry.reporter import Reporter
from agent.telemetry.view import Counts, HostFigures
from agent.wiring import losses
from tests.simulators.broker import RunningBroker
from tests.simulators.waiting import until

DAY_S = 24 * 3600.0
BEGIN_S = 1_800_000_000.0
CONNECT_S = 30.0


@dataclass
class Device:
    """What reports, with a clock that a test turns."""

    folder: Path
    spool_bytes: int
    now_s: float = BEGIN_S
    answered: int = field(default=0)

    def __post_init__(self) -> None:
        clock = self._clock
        self.spool = Spool(self.folder / "spool.db", most_bytes=self.spool_bytes, clock=clock)
        self.reporter = Reporter(
            "pole-7", source=energy.for_board("", machine="x86_64", override=1.0),
            host=lambda: HostFigures(30.0, 200.0, 0.1),
            counts=lambda: Counts(0, self.spool.dropped), wall=clock, monotonic=clock,
        )  # fmt: skip
        self.announcer = Announcer(
            "pole-7", enqueue=self._enqueue, changed=lambda: None, clock=clock
        )

    def _clock(self) -> float:
        return self.now_s

    def _enqueue(self, rank: Any, event: Event) -> None:
        self.spool.put(rank, "t/event", event.to_json())

    def live_through(self, days: float, *, every_s: float) -> int:
        """Report as often as it does; how many reports that were."""
        end_s, count = self.now_s + days * DAY_S, 0
        while self.now_s < end_s:
            self.now_s += every_s
            self.spool.put("telemetry", "t/telemetry", self.reporter.snapshot().to_json())
            count += 1
            if count % 1000 == 0:
                self.announcer.trouble("crashed", f"crash {count}")
        return count


async def report(device: Device, broker: RunningBroker) -> tuple[list[Telemetry], list[Event]]:
    """The broker is back: everything that arrives until the spool is empty and all was told."""
    telemetry: list[Telemetry] = []
    events: list[Event] = []

    def hear(message: Message) -> None:
        if message.topic == "t/telemetry":
            telemetry.append(Telemetry.model_validate_json(message.payload))
        else:
            events.append(Event.model_validate_json(message.payload))

    async def publish(link: Link, waiting: Waiting) -> None:
        await link.publish(waiting.topic, waiting.payload)

    async with (
        Link(broker.settings(), client_id="fleet", clean=True) as fleet,
        Link(broker.settings(), client_id="device") as link,
    ):
        await fleet.keep(["t/+"], hear)
        await fleet.connected(CONNECT_S)
        await link.connected(CONNECT_S)
        sent = 0
        while len(device.spool):
            sent += await device.spool.drain(partial(publish, link))
            losses.tell(device.spool, device.announcer)
        await until(lambda: len(telemetry) + len(events) == sent)
    return telemetry, events


@pytest.mark.parametrize(
    "absence",
    [
        (3, 600, 32 * 1024),
        pytest.param((30, 60, 8 * 2**20), marks=[pytest.mark.prove, pytest.mark.timeout(1800)]),
    ],
    ids=["3 days", "30 days"],
)
async def test_after_a_long_absence_reports_are_complete_or_say_what_is_missing(
    broker: RunningBroker,
    tmp_path: Path,
    absence: tuple[float, float, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    days, every_s, spool_bytes = absence
    device = Device(tmp_path, spool_bytes)
    count = device.live_through(days, every_s=every_s)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    telemetry, events = await report(device, broker)
    # What is left is the newest, without a gap.
    numbers = sorted(each.sequence for each in telemetry)
    assert numbers == list(range(count - len(numbers), count))
    # What is missing is said, by number and by time.
    (told,) = [event for event in events if event.kind == "dropped"]
    missing = told.figures
    assert missing["messages"] == count - len(numbers) > 0
    assert missing["what"] == "telemetry"
    assert missing["from_s"] == BEGIN_S + every_s
    assert missing["to_s"] == min(each.to_s for each in telemetry) - every_s
    # Events outlive telemetry.
    assert sum(event.kind == "crashed" for event in events) == count // 1000
    assert size <= 1.3 * spool_bytes + 5 * 2**20  # with SQLite's log
    with capsys.disabled():
        print(f"\n  {days} days: {count} reports, {len(numbers)} kept in {size / 2**20:.1f} MiB; "
              f"told: {told.message}; {json.dumps(missing)}")  # fmt: skip
