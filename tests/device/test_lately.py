"""The headroom of the last day: what is tight for long counts, and our own work does not."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.device import headroom, kernel, lately, profile
from agent.device.lately import LOOK_S, SPAN_S, STRETCH_S, Lately, Ours, Watch


def filled(*stretches: tuple[float, float]) -> Lately:
    """One look at the beginning of each stretch of five minutes."""
    found = Lately()
    for number, (free_mib, idle) in enumerate(stretches):
        found.add(number * STRETCH_S, free_mib=free_mib, idle_share=idle)
    return found


def test_before_any_look_nothing_is_claimed() -> None:
    assert Lately().free_mib() is None
    assert Lately().idle_share() is None


def test_what_is_tight_every_morning_decides() -> None:
    day = filled(*[(900.0, 0.9)] * 200, *[(300.0, 0.2)] * 60)
    assert (day.free_mib(), day.idle_share()) == (300.0, 0.2)


def test_an_upgrade_of_an_hour_does_not() -> None:
    day = filled(*[(900.0, 0.9)] * 270, *[(300.0, 0.2)] * 12)
    assert (day.free_mib(), day.idle_share()) == (900.0, 0.9)


def test_within_five_minutes_the_least_memory_counts_and_the_usual_load() -> None:
    found = Lately()
    for at, (free, idle) in enumerate([(900, 1.0), (200, 0.0), (800, 0.5)]):
        found.add(at * LOOK_S, free_mib=free, idle_share=idle)
    assert (found.free_mib(), found.idle_share()) == (200.0, 0.5)


def test_what_is_older_than_a_day_is_forgotten() -> None:
    found = filled((100.0, 0.1))
    found.add(SPAN_S, free_mib=900.0, idle_share=0.9)
    assert (found.free_mib(), found.idle_share()) == (900.0, 0.9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1)), min_size=1, max_size=400))
def test_it_is_never_more_than_most_of_the_day_had(day: list[tuple[float, float]]) -> None:
    found = filled(*day)
    free, idle = found.free_mib(), found.idle_share()
    assert free is not None
    assert idle is not None
    kept = day[-int(SPAN_S / STRETCH_S) :]
    assert sum(mib < free for mib, _ in kept) <= 0.05 * len(kept)
    assert sum(share < idle for _, share in kept) <= 0.1 * len(kept)


# --- whose the memory and the time are -------------------------------------------------------


class Device:
    """Two CPUs of which one is busy; so much of that is our worker's."""

    def __init__(self, work_share: float, memory_mib: float = 0.0, server_mib: float = 0.0):
        self.now_s, self.work_share = 0.0, work_share
        self.memory_mib, self.server_mib = memory_mib, server_mib
        self.cpus = sorted(profile.allowed_cpus())

    def watch(self) -> Watch:
        return Watch(
            lambda: self.now_s, sampler=self.sample, available=lambda: 500.0, look=self.look
        )

    def sample(self) -> dict[int, kernel.CpuTimes]:
        ticks = int(self.now_s * 100)
        return {cpu: kernel.CpuTimes(ticks // 2, ticks) for cpu in self.cpus}

    def look(self) -> Ours:
        spent = self.now_s * self.work_share * len(self.cpus)
        return Ours(spent, frozenset({7}), self.memory_mib, self.server_mib)


def looked(device: Device) -> Watch:
    watch = device.watch()
    for _ in range(4):
        device.now_s += LOOK_S
        watch.look()
    return watch


@pytest.mark.parametrize(("work_share", "idle"), [(0.0, 0.5), (0.3, 0.8), (0.5, 1.0)])
def test_what_our_worker_took_was_idle(work_share: float, idle: float) -> None:
    assert looked(Device(work_share)).lately.idle_share() == pytest.approx(idle)


def test_what_the_worker_holds_is_free_and_what_the_server_holds_is_not() -> None:
    watch = looked(Device(0.0, memory_mib=300.0, server_mib=100.0))
    assert watch.lately.free_mib() == 800.0
    now = headroom.Headroom(
        memory_available_mib=500, memory_bound_by="/proc/meminfo", swap_free_mib=0,
        idle_cpu_share=0.1, disk_free_mib=1, disk_path="/",
    )  # fmt: skip
    drawn = watch.drawn_in(now)
    assert drawn.memory_available_mib == 700  # with the worker's 200
    assert drawn.idle_cpu_share == 0.5


def test_the_day_bounds_the_moment() -> None:
    device = Device(0.0)
    watch = looked(device)
    now = headroom.Headroom(
        memory_available_mib=4000, memory_bound_by="/proc/meminfo", swap_free_mib=0,
        idle_cpu_share=0.9, disk_free_mib=1, disk_path="/",
    )  # fmt: skip
    drawn = watch.drawn_in(now)
    assert (drawn.memory_available_mib, drawn.memory_bound_by) == (500, "the last day")
    assert drawn.idle_cpu_share == 0.5


def test_children_of_this_process_are_seen_and_those_that_serve_told_apart() -> None:
    busy = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
    commands = [[sys.executable, "-c", busy], [sys.executable, "-c", busy, lately.SERVER]]
    children = [
        subprocess.Popen(one, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for one in commands
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.read(1)
        found = lately.ours()
    finally:
        for child in children:
            child.communicate()
    assert children[0].pid in found.work
    assert children[1].pid not in found.work
    assert os.getpid() not in found.work
    assert 0 < found.server_mib < found.memory_mib
