"""What a processor says of itself, in the kernel's words: auxiliary vector to /proc/cpuinfo (pure).

An emulator of user programs tells them which instructions there are (AT_HWCAP, CPUID), but most
hand out the host's /proc/cpuinfo, which on another architecture has no sense at all. So the file
is written as a kernel on that processor would write it, from nothing but those bits.
"""

from collections.abc import Mapping

# Linux, arch/arm64/include/uapi/asm/hwcap.h and the names of arch/arm64/kernel/cpuinfo.c, by bit.
HWCAP = (
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp",
    "asimdhp", "cpuid", "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4",
    "asimddp", "sha512", "sve", "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb",
    "paca", "pacg",
)  # fmt: skip
HWCAP2 = (
    "dcpodp", "sve2", "sveaes", "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint",
    "svei8mm", "svef32mm", "svef64mm", "svebf16", "i8mm", "bf16", "dgh", "rng", "bti",
)  # fmt: skip
X86 = {
    "SSE2": "sse2", "SSSE3": "ssse3", "FMA3": "fma", "AVX": "avx", "F16C": "f16c", "AVX2": "avx2",
    "AVX512F": "avx512f", "AVX512CD": "avx512cd", "AVX512VNNI": "avx512_vnni",
}  # fmt: skip
"""numpy's names of what CPUID reports, and the kernel's."""


def arm_flags(hwcap: int, hwcap2: int) -> tuple[str, ...]:
    """Return the `Features` of an arm64 kernel by the bits of AT_HWCAP and AT_HWCAP2."""
    return tuple(
        name
        for names, bits in ((HWCAP, hwcap), (HWCAP2, hwcap2))
        for at, name in enumerate(names)
        if bits >> at & 1
    )


def x86_flags(found: Mapping[str, bool]) -> tuple[str, ...]:
    """Return those `flags` of an x86 kernel that int8 kernels ask for, by numpy's features."""
    return tuple(flag for name, flag in X86.items() if found.get(name))


def arm_cpuinfo(flags: tuple[str, ...], *, part: int) -> str:
    """Return /proc/cpuinfo of one core by Arm. `part` is the number that MIDR_EL1 carries."""
    return (
        f"processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: {' '.join(flags)}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
        f"CPU part\t: {part:#05x}\nCPU revision\t: 3\n"
    )


def x86_cpuinfo(flags: tuple[str, ...], *, name: str) -> str:
    """Return /proc/cpuinfo of one x86 core."""
    return f"processor\t: 0\nmodel name\t: {name}\nflags\t\t: {' '.join(flags)}\n"


def one_core() -> dict[str, str]:
    """Return what /sys says of one core with its own caches, by path from the root.

    onnxruntime's library for such questions (pytorch/cpuinfo) fails where they contradict
    /proc/cpuinfo.
    """
    cpu = "sys/devices/system/cpu"
    files = {f"{cpu}/{name}": "0" for name in ("possible", "present", "online", "kernel_max")}
    for name in ("physical_package_id", "core_id"):
        files[f"{cpu}/cpu0/topology/{name}"] = "0"
    for name in ("cluster_cpus_list", "core_siblings_list", "thread_siblings_list"):
        files[f"{cpu}/cpu0/topology/{name}"] = "0"
    for name, khz in (("min", 600_000), ("max", 1_500_000)):
        files[f"{cpu}/cpu0/cpufreq/cpuinfo_{name}_freq"] = str(khz)
    caches = ((1, "Data", "32K"), (1, "Instruction", "48K"), (2, "Unified", "1024K"))
    for at, (level, kind, size) in enumerate(caches):
        values = {
            "level": str(level), "type": kind, "size": size, "shared_cpu_list": "0",
            "coherency_line_size": "64", "ways_of_associativity": "4", "number_of_sets": "256",
        }  # fmt: skip
        files |= {f"{cpu}/cpu0/cache/index{at}/{name}": text for name, text in values.items()}
    return {path: f"{text}\n" for path, text in files.items()}
