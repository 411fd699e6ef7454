"""What this device is: board, usable cores, instruction sets, runtime, and what its kernel lacks.

Nothing here changes while the device runs; what is free at the moment is in headroom.py.
"""

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.device import cgroups, kernel
from compression.job import DeviceClass
from compression.words import Words

ROOT = Path("/")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_NO_RUNTIME = "absent"

# What vendors leave in the DMI tables when they leave them unfilled.
_DMI_NOISE = ("to be filled", "default string", "system manufacturer", "system product", "none")


class KernelGap(Words):
    """A kernel feature that is off, what is lost by that, and the flags that turn it on."""

    feature: str
    lost: str
    flags: str
    file: str


class Profile(Words):
    """One device. `cores` is what the process may really use, `isa` what matters to int8."""

    board: str
    board_source: str
    machine: str
    cpu: str
    cores_present: int
    cores_allowed: int
    cpu_quota_cores: float | None
    cpu_quota_where: str | None
    cores: int
    isa: tuple[str, ...]
    memory_total_mib: float
    kernel: str
    onnxruntime: str
    kernel_gaps: tuple[KernelGap, ...]

    @property
    def device_class(self) -> DeviceClass:
        """What decides whether a variant measured elsewhere may be used here."""
        return DeviceClass(
            machine=self.machine, isa=self.isa, cores=self.cores, onnxruntime=self.onnxruntime
        )


def read(root: Path = ROOT, *, machine: str | None = None) -> Profile:
    """Read the profile from the file tree at `root` (`/`, or a board's tree in a test)."""
    blocks = kernel.cpu_blocks(kernel.read_text(root / "proc/cpuinfo"))
    present = frozenset(int(b["processor"]) for b in blocks if b.get("processor", "").isdigit())
    allowed = allowed_cpus(root)
    quota = min(cgroups.cpu_limits(root), key=lambda limit: limit.cores, default=None)
    board, source = _board(root, blocks)
    meminfo = kernel.meminfo_bytes(kernel.read_text(root / "proc/meminfo"))
    return Profile(
        board=board,
        board_source=source,
        machine=machine or platform.machine(),
        cpu=_first(blocks, "model name", "cpu model", "Processor") or "unknown",
        cores_present=max(1, len(present)),
        cores_allowed=len(allowed),
        cpu_quota_cores=quota.cores if quota else None,
        cpu_quota_where=quota.where if quota else None,
        cores=usable_cores(len(allowed), quota.cores if quota else None),
        isa=kernel.isa(blocks),
        memory_total_mib=round(meminfo.get("MemTotal", 0) / 2**20, 1),
        kernel=kernel.read_text(root / "proc/sys/kernel/osrelease").strip() or "unknown",
        onnxruntime=runtime_version(),
        kernel_gaps=_kernel_gaps(root, is_pi=board.startswith("Raspberry Pi")),
    )


def device_class(root: Path = ROOT, *, machine: str | None = None) -> DeviceClass:
    """Only the class of the device at `root`."""
    return read(root, machine=machine).device_class


def allowed_cpus(root: Path = ROOT) -> frozenset[int]:
    """The CPUs that affinity and cpusets leave to this process; at least one."""
    for line in kernel.read_text(root / "proc/self/status").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            # A mask may name CPUs that the board does not have.
            present = frozenset(kernel.cpu_times(kernel.read_text(root / "proc/stat")))
            cpus = kernel.cpu_list(line.partition(":")[2])
            return (cpus & present if present else cpus) or frozenset({0})
    return frozenset({0})


def usable_cores(allowed: int, quota_cores: float | None) -> int:
    """Whole cores that threads can keep busy: a quota of 1.5 is one, or two would be stopped."""
    return max(1, min(allowed, math.floor(quota_cores) if quota_cores is not None else allowed))


def runtime_version() -> str:
    """The installed onnxruntime's version, read without importing it."""
    for name in _RUNTIMES:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return _NO_RUNTIME


def _board(root: Path, blocks: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """The board's name, and where it was found: the first of these places that names one."""
    for place in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        if model := kernel.read_text(root / place).strip():
            return model, f"/{place}"
    dmi = root / "sys/class/dmi/id"
    names = [kernel.read_text(dmi / name).strip() for name in ("sys_vendor", "product_name")]
    named = " ".join(name for name in names if name and not name.lower().startswith(_DMI_NOISE))
    if named:
        return named, "/sys/class/dmi/id"
    # Containers hide /sys/firmware; Raspberry Pi kernels repeat the board in cpuinfo.
    if model := _first(blocks, "Model", "Hardware", "model name"):
        return model, "/proc/cpuinfo"
    return "unknown", "nowhere"


def _first(blocks: Sequence[Mapping[str, str]], *keys: str) -> str:
    return next((block[key] for key in keys for block in blocks if block.get(key)), "")


def _kernel_gaps(root: Path, *, is_pi: bool) -> tuple[KernelGap, ...]:
    """What the kernel was told to leave off. Raspberry Pi OS does so for both of these."""
    file = "/boot/firmware/cmdline.txt" if is_pi else "the kernel command line"
    gaps = []
    controllers = kernel.read_text(root / "sys/fs/cgroup/cgroup.controllers").split()
    legacy = kernel.read_text(root / "proc/cgroups")
    enabled = [line.split()[-1:] == ["1"] for line in legacy.splitlines() if line[:7] == "memory\t"]
    # Linux 6.12 and later leave memory out of /proc/cgroups, so version 2's list is asked too.
    if "memory" not in controllers and not any(enabled):
        gaps.append(
            KernelGap(
                feature="memory control groups",
                lost="MemoryMax= has no effect; limits rest on RLIMIT_DATA and oom_score_adj",
                flags="cgroup_enable=memory cgroup_memory=1",
                file=file,
            )
        )
    # Some kernels keep the file and refuse to read it.
    if not kernel.read_text(root / "proc/pressure/memory"):
        gaps.append(
            KernelGap(
                feature="pressure stall information (PSI)",
                lost="memory pressure is judged by MemAvailable and swap alone",
                flags="psi=1",
                file=file,
            )
        )
    return tuple(gaps)
