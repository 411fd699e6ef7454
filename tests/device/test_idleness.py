"""Whose the processor's time is, read from files as the kernel writes them; and real ones."""

import os
from pathlib import Path

import pytest

from agent.device import idleness
from agent.device.idleness import WINDOW_S, Meter


class Device:
    """Two CPUs whose time a test spends; `ours` is process 7."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_s = root, 0.0
        self.busy = self.idle = self.ours = 0
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/status").write_text("Cpus_allowed_list:\t0-1\n")
        (root / "proc/7").mkdir()
        self.spend(0, others=0)

    def spend(self, seconds: float, *, others: float, ours: float = 0.0) -> None:
        """Let time go by, of which `others` and `ours` take shares of both CPUs."""
        ticks = round(seconds * 200)
        self.now_s += seconds
        self.ours += round(ticks * ours)
        self.busy += round(ticks * (others + ours))
        self.idle += ticks - round(ticks * (others + ours))
        half, rest = self.busy // 2, self.busy - self.busy // 2
        lines = [f"cpu{cpu} {busy} 0 0 {idle} 0 0 0 0 0 0" for cpu, busy, idle in
                 ((0, half, self.idle // 2), (1, rest, self.idle - self.idle // 2))]  # fmt: skip
        (self.root / "proc/stat").write_text("\n".join(lines) + "\n")
        fields = " ".join(["S", *["0"] * 10, str(self.ours), "0"])
        (self.root / "proc/7/stat").write_text(f"7 (a) b) {fields} 0 0\n")


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def meter(device: Device) -> Meter:
    return Meter(device.root, clock=lambda: device.now_s)


def test_our_own_time_is_not_others(device: Device) -> None:
    looks = meter(device)
    looks.read([7])
    device.spend(WINDOW_S, others=0.1, ours=0.5)
    assert looks.read([7]).others_cpu_share == pytest.approx(0.1)


def test_a_load_is_seen_within_the_window_and_forgotten_behind_it(device: Device) -> None:
    looks = meter(device)
    looks.read([])
    for _ in range(8):
        device.spend(0.25, others=0.0)
        looks.read([])
    device.spend(0.25, others=1.0)
    assert looks.read([]).others_cpu_share == pytest.approx(0.5)
    device.spend(0.25, others=1.0)
    assert looks.read([]).others_cpu_share == pytest.approx(1.0)
    for share in (0.5, 0.0):
        device.spend(0.25, others=0.0)
        assert looks.read([]).others_cpu_share == pytest.approx(share)


def test_a_child_that_came_or_went_is_not_taken_for_somebody_else(device: Device) -> None:
    looks = meter(device)
    looks.read([7])
    device.spend(0.25, others=0.0, ours=0.5)
    looks.read([7])
    device.spend(0.25, others=0.0, ours=0.5)
    assert looks.read([]).others_cpu_share == pytest.approx(0.0), "what it took last is not known"
    device.spend(0.25, others=0.0)
    assert looks.read([]).others_cpu_share == pytest.approx(0.0)


def test_a_device_without_any_of_these_files_is_taken_as_it_is(tmp_path: Path) -> None:
    reading = Meter(tmp_path, clock=lambda: 0.0).read([1, 2])
    assert reading.others_cpu_share == 0.0


def test_this_machine_can_be_read() -> None:
    reading = Meter().read([os.getpid()])
    assert 0 <= reading.others_cpu_share <= 1
    assert 0 <= reading.minute_of_day < 24 * 60


def test_sensors_that_answer_with_nonsense_are_no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError("no such device")

    monkeypatch.setattr(idleness.psutil, "sensors_temperatures", fails)
    assert Meter().read([]).celsius is None
