"""Small file trees laid out as /proc and /sys are on real boards and in containers.

What a board's kernel prints was copied from reports of such boards; only the lines that a
reader may look at are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PI4_FEATURES = "fp asimd evtstrm crc32 cpuid"
PI5_FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
ORIN_FEATURES = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp uscat ilrcpc flagm paca pacg"
)
VNNI_FLAGS = "fpu sse2 ssse3 fma avx f16c avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni"
HASWELL_FLAGS = "fpu sse2 ssse3 fma avx f16c avx2"

_LEGACY_CGROUPS = (
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t60\t1\nmemory\t0\t60\t{}\n"
)
_V2_MOUNT = "30 23 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@dataclass(frozen=True)
class Board:
    """What a tree is made of. Sizes in MiB."""

    files: Mapping[str, str]
    cores: int
    memory_mib: int
    available_mib: int
    psi: bool = True
    memory_cgroup: bool = True


def arm_cpuinfo(features: str, cores: int, *, model: str = "") -> str:
    """/proc/cpuinfo of an arm64 kernel; Raspberry Pi kernels end it with the board's model."""
    blocks = [
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\n" for n in range(cores)
    ]
    return "\n".join(
        [*blocks, f"Serial\t\t: 10000000abcdef\nModel\t\t: {model}\n"] if model else blocks
    )


def x86_cpuinfo(flags: str, cores: int, *, name: str) -> str:
    """/proc/cpuinfo of an x86 kernel."""
    return "\n".join(
        f"processor\t: {n}\nmodel name\t: {name}\nflags\t\t: {flags}\nbugs\t\t: spectre_v1\n"
        for n in range(cores)
    )


PI4_NAME = "Raspberry Pi 4 Model B Rev 1.4"
PI5_NAME = "Raspberry Pi 5 Model B Rev 1.0"
ORIN_NAME = "NVIDIA Jetson Orin Nano Developer Kit"

PI4 = Board(
    {
        "proc/cpuinfo": arm_cpuinfo(PI4_FEATURES, 4, model=PI4_NAME),
        "proc/device-tree/model": PI4_NAME + "\0",
        "proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-v8\n",
    },
    cores=4, memory_mib=3793, available_mib=3300, psi=False, memory_cgroup=False,
)  # fmt: skip
PI5 = Board(
    {
        "proc/cpuinfo": arm_cpuinfo(PI5_FEATURES, 4, model=PI5_NAME),
        "proc/device-tree/model": PI5_NAME + "\0",
    },
    cores=4, memory_mib=8062, available_mib=7400, psi=False, memory_cgroup=False,
)  # fmt: skip
ORIN = Board(
    {
        "proc/cpuinfo": arm_cpuinfo(ORIN_FEATURES, 6),
        "sys/firmware/devicetree/base/model": ORIN_NAME + "\0",
    },
    cores=6, memory_mib=7620, available_mib=5900,
)  # fmt: skip
GATEWAY = Board(
    {
        "proc/cpuinfo": x86_cpuinfo(VNNI_FLAGS, 8, name="Intel(R) Xeon(R) D-1746TER"),
        "sys/class/dmi/id/sys_vendor": "Advantech\n",
        "sys/class/dmi/id/product_name": "UNO-348\n",
    },
    cores=8, memory_mib=16000, available_mib=12000,
)  # fmt: skip
UNNAMED_PC = Board(
    {
        "proc/cpuinfo": x86_cpuinfo(HASWELL_FLAGS, 2, name="Intel(R) Core(TM) i3-4130"),
        "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.\n",
        "sys/class/dmi/id/product_name": "System Product Name\n",
    },
    cores=2, memory_mib=4000, available_mib=3000,
)  # fmt: skip


def lay_out(root: Path, board: Board, *, more: Mapping[str, str] | None = None) -> Path:
    """Write a board's tree under `root`; `more` adds files or replaces some."""
    last = board.cores - 1
    stat = "".join(f"cpu{n} 100 0 100 800 0 0 0 0 0 0\n" for n in range(board.cores))
    files = {
        "proc/meminfo": (
            f"MemTotal:       {board.memory_mib * 1024} kB\nMemFree:  1024 kB\n"
            f"MemAvailable:   {board.available_mib * 1024} kB\nSwapFree:         204800 kB\n"
        ),
        "proc/stat": f"cpu  400 0 400 3200 0 0 0 0 0 0\n{stat}btime 1700000000\n",
        "proc/self/status": f"Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t0-{last}\n",
        "proc/self/cgroup": "0::/system.slice/trimtab.service\n",
        "proc/self/mountinfo": _V2_MOUNT.format(top="/"),
        "proc/cgroups": _LEGACY_CGROUPS.format(int(board.memory_cgroup)),
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids"
        + (" memory" if board.memory_cgroup else ""),
        **({"proc/pressure/memory": "some avg10=0.00 total=0\n"} if board.psi else {}),
        **board.files,
        **(more or {}),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group_v2(path: str, **files: str) -> dict[str, str]:
    """One group of version 2: `memory_max="..."` becomes the file memory.max."""
    folder = f"sys/fs/cgroup/{path}".rstrip("/")
    return {f"{folder}/{name.replace('_', '.', 1)}": text for name, text in files.items()}


def container_v1(
    *, quota_us: int, period_us: int, limit_bytes: int, used_bytes: int
) -> dict[str, str]:
    """A container on version 1 that sees only its own group, mounted as the top."""
    top = "/docker/0123abcd"
    memory, cpu = "sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,cpuacct"
    return {
        "proc/self/cgroup": f"9:memory:{top}\n4:cpu,cpuacct:{top}\n1:name=systemd:{top}\n",
        "proc/self/mountinfo": (
            f"40 30 0:31 {top} /{memory} ro,nosuid - cgroup cgroup rw,memory\n"
            f"41 30 0:32 {top} /{cpu} ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
            f"42 30 0:33 {top} /sys/fs/cgroup/systemd ro - cgroup systemd rw,name=systemd\n"
        ),
        f"{memory}/memory.limit_in_bytes": f"{limit_bytes}\n",
        f"{memory}/memory.usage_in_bytes": f"{used_bytes}\n",
        f"{memory}/memory.stat": f"inactive_file 1\ntotal_inactive_file {used_bytes // 4}\n",
        f"{cpu}/cpu.cfs_quota_us": f"{quota_us}\n",
        f"{cpu}/cpu.cfs_period_us": f"{period_us}\n",
    }


def top_v2(path: str) -> dict[str, str]:
    """The two /proc files of a process in group `path` of version 2, seen from the host."""
    return {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": _V2_MOUNT.format(top="/")}
