"""Clock, heat and other work, read from small trees laid out as boards."""

import os
from pathlib import Path

import pytest

from compression.ruler import conditions
from compression.ruler.conditions import Clock
from tests.simulators import boards

FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"
CPU = min(os.sched_getaffinity(0))
FREQUENCY = f"sys/devices/system/cpu/cpu{CPU}/cpufreq/scaling_cur_freq"
HEAT = f"sys/devices/system/cpu/cpu{CPU}/thermal_throttle/"


def board(tmp_path: Path, **files: str) -> Path:
    names = {"frequency": FREQUENCY, "firmware": FIRMWARE, "core": HEAT + "core_throttle_count",
             "package": HEAT + "package_throttle_count", "stat": "proc/stat",
             "loadavg": "proc/loadavg"}  # fmt: skip
    more = {names[key]: text for key, text in files.items()}
    return boards.lay_out(tmp_path, boards.PI4, more=more)


def test_a_raspberry_pi_under_voltage_says_so(tmp_path: Path) -> None:
    found = conditions.read_clock(board(tmp_path, frequency="600000\n", firmware="50005\n"))
    assert found.khz == 600_000
    assert found.signs() == ("under-voltage", "throttled")
    assert conditions.summary([found]) == "600 to 600 MHz, under-voltage, throttled"


def test_what_only_was_since_boot_is_no_sign_of_now(tmp_path: Path) -> None:
    assert conditions.read_clock(board(tmp_path, firmware="0x50000\n")).signs() == ()


def test_a_pc_counts_how_often_it_was_slowed_for_heat(tmp_path: Path) -> None:
    before = conditions.read_clock(board(tmp_path, core="7\n", package="2\n"))
    after = conditions.read_clock(board(tmp_path, core="8\n", package="2\n"))
    assert (before.throttle_count, after.throttle_count) == (9, 10)
    assert not before.steady(after)
    assert "slowed for heat 1 times" in conditions.summary([before, after])


def test_a_board_that_says_nothing_is_taken_as_steady(tmp_path: Path) -> None:
    found = conditions.read_clock(tmp_path)
    assert found == Clock(None)
    assert found.steady(found)
    assert conditions.summary([found]) == "frequency not known"


@pytest.mark.parametrize("text", ["", "<unsupported>\n", "-\n"])
def test_nonsense_in_a_file_is_no_reading(tmp_path: Path, text: str) -> None:
    tree = board(tmp_path, frequency=text, firmware=text, core=text)
    assert conditions.read_clock(tree) == Clock(None)


@pytest.mark.parametrize(
    ("before", "after", "steady"),
    [
        (Clock(1_800_000), Clock(1_750_000), True),  # within 3 %
        (Clock(1_800_000), Clock(1_500_000), False),
        (Clock(600_000), Clock(1_800_000), False),
        (Clock(1_800_000), Clock(None), True),
        (Clock(1_800_000, 0), Clock(1_800_000, 0b100), False),
        (Clock(None, 0x50000), Clock(None, 0x70000), False),
        (Clock(None, 0b100), Clock(None, 0b100), True),  # that is how fast it is now
    ],
)
def test_steady_is_the_same_clock_and_the_same_bits(
    before: Clock, after: Clock, *, steady: bool
) -> None:
    assert before.steady(after) is steady


def test_others_work_is_what_is_left_of_the_busy_time(tmp_path: Path) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    stats = [
        f"cpu  {user * tick} 0 0 {idle * tick} 0 0 0 {steal * tick} 0 0\ncpu0 1 2 3\n"
        for user, idle, steal in ((100, 100, 10), (106, 103, 11))
    ]
    before = conditions.read_work(50.0, board(tmp_path, stat=stats[0], loadavg="1.50 1 1 1/9 9\n"))
    after = conditions.read_work(52.0, board(tmp_path, stat=stats[1], loadavg="9.9 1 1 1/9 9\n"))
    # Of 10 s of CPU time 6 were busy, 2 of them ours; 1 went to the host.
    assert before.until(after) == (
        "others took 40% of all CPU time, the host 10% (steal); load average 1.50 before"
    )


def test_without_proc_stat_the_load_is_not_known(tmp_path: Path) -> None:
    found = conditions.read_work(1.0, tmp_path)
    assert found.until(found).startswith("not known")


def test_an_old_kernel_without_steal_is_read_too(tmp_path: Path) -> None:
    found = conditions.read_work(0.0, board(tmp_path, stat="cpu  100 0 100 800\n"))
    assert found.steal_s == 0.0
    assert found.total_s * os.sysconf("SC_CLK_TCK") == pytest.approx(1000)


def test_this_machine_can_be_read() -> None:
    before = conditions.read_work(0.0)
    assert before.total_s >= before.busy_s > 0
    assert conditions.read_clock().steady(conditions.read_clock()) in {True, False}
    assert "normal policy" in conditions.scheduling()
