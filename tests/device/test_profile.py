"""Each board is known by its own files: name, cores, the flags that matter, what is missing."""

import os
from pathlib import Path

import pytest

from agent.device import profile
from tests.simulators import boards


def _read(root: Path, board: boards.Board, machine: str = "aarch64") -> profile.Profile:
    return profile.read(boards.lay_out(root, board), machine=machine)


@pytest.mark.parametrize(
    ("board", "machine", "name", "isa", "how"),
    [
        (boards.PI4, "aarch64", boards.PI4_NAME, "asimd", "slow"),
        (boards.PI5, "aarch64", boards.PI5_NAME, "asimd asimddp", "dot"),
        (boards.ORIN, "aarch64", boards.ORIN_NAME, "asimd asimddp", "dot"),
        (boards.GATEWAY, "x86_64", "Advantech UNO-348", "avx2 avx512f avx512_vnni", "dot"),
        (boards.UNNAMED_PC, "x86_64", "Intel(R) Core(TM) i3-4130", "avx2", "saturates"),
    ],
    ids=["pi4", "pi5", "orin", "gateway", "unnamed"],
)
def test_names_the_board_and_the_flags_that_decide_about_int8(  # noqa: PLR0917 - pytest names them
    tmp_path: Path, board: boards.Board, machine: str, name: str, isa: str, how: str
) -> None:
    found = _read(tmp_path, board, machine)
    assert (found.board, " ".join(found.isa), found.cores) == (name, isa, board.cores)
    assert found.memory_total_mib == board.memory_mib
    assert found.device_class.int8_dot is (how == "dot")
    assert found.device_class.int8_saturates is (how == "saturates")


def test_raspberry_pi_os_is_told_which_flags_turn_on_what_it_leaves_off(tmp_path: Path) -> None:
    gaps = _read(tmp_path, boards.PI4).kernel_gaps
    assert [gap.flags for gap in gaps] == ["cgroup_enable=memory cgroup_memory=1", "psi=1"]
    assert {gap.file for gap in gaps} == {"/boot/firmware/cmdline.txt"}


def test_a_kernel_with_everything_on_has_no_gaps(tmp_path: Path) -> None:
    assert _read(tmp_path, boards.ORIN).kernel_gaps == ()


def test_a_kernel_that_keeps_memory_out_of_the_old_list_is_not_blamed(tmp_path: Path) -> None:
    root = boards.lay_out(
        tmp_path, boards.ORIN, more={"proc/cgroups": "#subsys_name\ncpu\t0\t1\t1\n"}
    )
    assert profile.read(root, machine="aarch64").kernel_gaps == ()


def test_a_container_without_device_tree_knows_the_pi_by_cpuinfo(tmp_path: Path) -> None:
    root = boards.lay_out(tmp_path, boards.PI5)
    (root / "proc/device-tree/model").unlink()
    found = profile.read(root, machine="aarch64")
    assert (found.board, found.board_source) == (boards.PI5_NAME, "/proc/cpuinfo")


def test_affinity_narrows_the_cores(tmp_path: Path) -> None:
    root = boards.lay_out(
        tmp_path, boards.GATEWAY, more={"proc/self/status": "Cpus_allowed_list:\t1,3-4\n"}
    )
    found = profile.read(root, machine="x86_64")
    assert (found.cores_present, found.cores_allowed, found.cores) == (8, 3, 3)


def test_a_mask_wider_than_the_board_counts_only_what_is_there(tmp_path: Path) -> None:
    root = boards.lay_out(
        tmp_path, boards.PI4, more={"proc/self/status": "Cpus_allowed_list:\t0-255\n"}
    )
    assert profile.read(root, machine="aarch64").cores == 4


@pytest.mark.parametrize(
    ("quota_us", "cores"), [(50_000, 1), (150_000, 1), (200_000, 2), (900_000, 4)]
)
def test_a_quota_of_version_1_narrows_the_cores_to_whole_ones(
    tmp_path: Path, quota_us: int, cores: int
) -> None:
    limits = boards.container_v1(
        quota_us=quota_us, period_us=100_000, limit_bytes=2**30, used_bytes=0
    )
    found = profile.read(boards.lay_out(tmp_path, boards.PI5, more=limits), machine="aarch64")
    assert (found.cpu_quota_cores, found.cores) == (quota_us / 100_000, cores)


def test_the_tightest_quota_on_the_way_up_binds(tmp_path: Path) -> None:
    nested = {
        **boards.top_v2("/machine.slice/pod/app"),
        **boards.group_v2("machine.slice", cpu_max="150000 100000\n"),
        **boards.group_v2("machine.slice/pod", cpu_max="300000 100000\n"),
        **boards.group_v2("machine.slice/pod/app", cpu_max="max 100000\n"),
    }
    found = profile.read(boards.lay_out(tmp_path, boards.GATEWAY, more=nested), machine="x86_64")
    assert found.cpu_quota_cores == 1.5
    assert found.cpu_quota_where == "/sys/fs/cgroup/machine.slice/cpu.max"
    assert found.cores == 1


def test_an_empty_tree_still_gives_a_profile_with_one_core(tmp_path: Path) -> None:
    found = profile.read(tmp_path, machine="riscv64")
    assert (found.board, found.cores, found.isa) == ("unknown", 1, ())


def test_this_machine_has_a_profile_that_fits_its_affinity() -> None:
    found = profile.read()
    assert found.cores_allowed == len(os.sched_getaffinity(0))
    assert found.onnxruntime[0].isdigit()


def test_the_class_alone_is_that_of_the_profile(tmp_path: Path) -> None:
    root = boards.lay_out(tmp_path, boards.PI5)
    found = profile.device_class(root, machine="aarch64")
    assert found == profile.read(root, machine="aarch64").device_class
    assert (found.machine, found.cores) == ("aarch64", 4)
