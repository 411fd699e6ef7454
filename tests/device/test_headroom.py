"""What is free is the least of all that binds, and the default budget follows the formula."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.device import headroom, kernel, pressure, profile
from tests.simulators import boards

MIB = 2**20


def _headroom(**values: float) -> headroom.Headroom:
    base = {
        "memory_available_mib": 3300.0,
        "swap_free_mib": 0.0,
        "idle_cpu_share": 0.9,
        "disk_free_mib": 20_000.0,
    }
    return headroom.Headroom(**(base | values), memory_bound_by="MemAvailable", disk_path="/x")


@pytest.fixture
def pi4(tmp_path: Path) -> profile.Profile:
    return profile.read(boards.lay_out(tmp_path, boards.PI4), machine="aarch64")


def test_a_board_without_limits_has_what_the_kernel_calls_available(tmp_path: Path) -> None:
    root = boards.lay_out(tmp_path, boards.PI4)
    assert headroom.memory_available(root) == (3300 * MIB, "/proc/meminfo MemAvailable")


def test_a_container_of_version_1_has_its_limit_less_what_it_uses_beyond_cache(
    tmp_path: Path,
) -> None:
    limits = boards.container_v1(
        quota_us=-1, period_us=100_000, limit_bytes=512 * MIB, used_bytes=400 * MIB
    )
    free, where = headroom.memory_available(boards.lay_out(tmp_path, boards.PI4, more=limits))
    assert free == (512 - 400 + 100) * MIB
    assert where == "/sys/fs/cgroup/memory/memory.limit_in_bytes"


def test_the_largest_number_of_version_1_means_no_limit(tmp_path: Path) -> None:
    limits = boards.container_v1(
        quota_us=-1, period_us=100_000, limit_bytes=9223372036854771712, used_bytes=MIB
    )
    root = boards.lay_out(tmp_path, boards.PI4, more=limits)
    assert headroom.memory_available(root)[1] == "/proc/meminfo MemAvailable"


def test_the_level_with_the_least_left_binds_even_if_its_limit_is_larger(tmp_path: Path) -> None:
    nested = {
        **boards.top_v2("/system.slice/trimtab.service"),
        **boards.group_v2(
            "system.slice", memory_max=f"{1000 * MIB}\n", memory_current=f"{950 * MIB}\n",
            memory_stat=f"anon 5\ninactive_file {10 * MIB}\n",
        ),
        **boards.group_v2(
            "system.slice/trimtab.service", memory_max=f"{600 * MIB}\n", memory_high="max\n",
            memory_current=f"{100 * MIB}\n",
        ),
    }  # fmt: skip
    free, where = headroom.memory_available(boards.lay_out(tmp_path, boards.ORIN, more=nested))
    assert (free, where) == (60 * MIB, "/sys/fs/cgroup/system.slice/memory.max")


def test_a_high_mark_below_the_limit_binds_because_the_kernel_slows_us_there(
    tmp_path: Path,
) -> None:
    more = {
        **boards.top_v2("/a"),
        **boards.group_v2(
            "a", memory_max=f"{900 * MIB}", memory_high=f"{500 * MIB}", memory_current="0"
        ),
    }
    free, where = headroom.memory_available(boards.lay_out(tmp_path, boards.ORIN, more=more))
    assert (free, where) == (500 * MIB, "/sys/fs/cgroup/a/memory.high")


def test_a_limit_already_passed_leaves_nothing(tmp_path: Path) -> None:
    more = {
        **boards.top_v2("/a"),
        **boards.group_v2("a", memory_max=f"{MIB}", memory_current=f"{2 * MIB}"),
    }
    assert headroom.memory_available(boards.lay_out(tmp_path, boards.ORIN, more=more))[0] == 0


def test_the_memory_controller_of_a_hybrid_hierarchy_is_found_in_version_1(tmp_path: Path) -> None:
    more = boards.container_v1(quota_us=-1, period_us=1, limit_bytes=256 * MIB, used_bytes=0)
    more["proc/self/cgroup"] += "0::/elsewhere\n"
    more["proc/self/mountinfo"] += "50 30 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    assert (
        headroom.memory_available(boards.lay_out(tmp_path, boards.PI4, more=more))[0] == 256 * MIB
    )


def test_idle_time_is_taken_between_the_two_samples_alone() -> None:
    samples = iter([{0: kernel.CpuTimes(900, 1000)}, {0: kernel.CpuTimes(925, 1100)}])
    slept: list[float] = []
    share = headroom.idle_over(
        2.0, cpus=frozenset({0}), sampler=lambda: next(samples), sleep=slept.append
    )
    assert (share, slept) == (0.25, [2.0])


@pytest.mark.parametrize(
    ("idle", "quota", "share"),
    [(0.5, None, 0.5), (0.5, 1.0, 1.0), (0.1, 1.0, 0.4), (0.0, 0.5, 0.0)],
)
def test_a_quota_makes_the_same_idle_time_a_larger_share_of_less(
    tmp_path: Path, idle: float, quota: float | None, share: float
) -> None:
    root = boards.lay_out(tmp_path, boards.PI4)
    found = headroom.read(
        root, state_dir=tmp_path / "not/yet/there", idle_cpu_share=idle, quota_cores=quota
    )
    assert found.idle_cpu_share == share
    assert found.disk_path == str(tmp_path)
    assert found.disk_free_mib > 0


def test_the_example_of_the_budget_guide_comes_out_of_the_formula(pi4: profile.Profile) -> None:
    found = headroom.allowance(_headroom(), pi4, request_rate_hz=4)
    assert found.budget.model_dump(exclude_none=True) == {
        "peak_memory_mib": 1650.0, "size_mib": 2048.0, "threads": 2, "min_agreement": 0.98,
        "cpu_share": 0.63, "request_rate_hz": 4.0, "latency_p95_ms": 250.0,
    }  # fmt: skip
    guide = (Path(__file__).parents[2] / "docs/budget.md").read_text()
    for line in found.lines:
        assert line in guide


def test_without_a_rate_neither_latency_nor_cpu_is_bounded(pi4: profile.Profile) -> None:
    budget = headroom.default_budget(_headroom(), pi4)
    assert (budget.latency_p95_ms, budget.cpu_share, budget.request_rate_hz) == (None, None, None)


@pytest.mark.parametrize(
    ("free", "peak"), [(4000, 2000), (640, 320), (500, 180), (400, 80), (300, 37.5), (0, 1)]
)
def test_memory_is_half_then_less_the_reserve_then_an_eighth(
    pi4: profile.Profile, free: float, peak: float
) -> None:
    assert (
        headroom.default_budget(_headroom(memory_available_mib=free), pi4).peak_memory_mib == peak
    )


@given(st.floats(0, 1e6), st.floats(0, 1e7), st.floats(0, 1), st.none() | st.floats(0.01, 1e4))
def test_every_headroom_gives_a_budget_that_it_can_hold(
    memory: float, disk: float, idle: float, rate: float | None
) -> None:
    free = _headroom(memory_available_mib=memory, disk_free_mib=disk, idle_cpu_share=idle)
    device = profile.read(Path("/nonexistent"), machine="aarch64")
    budget = headroom.default_budget(free, device, request_rate_hz=rate)
    assert budget.peak_memory_mib is not None
    assert budget.peak_memory_mib <= max(1.0, memory / 2 + 0.1)
    assert budget.size_mib is not None
    assert budget.size_mib <= max(1.0, disk / 4 + 0.1)


def test_counts_what_the_kernel_killed_for_memory(tmp_path: Path) -> None:
    assert pressure.oom_kills(tmp_path) == 0
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 3\noom_kill_disable 0\n")
    assert pressure.oom_kills(tmp_path) == 3
