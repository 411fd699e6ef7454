"""The processors that are emulated, each for what it lacks or has for int8."""

import functools
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """One model of a processor as the emulator calls it. `model` None: this machine's own."""

    name: str
    machine: str
    model: str | None
    stands_for: str
    part: int = 0
    """Of an Arm core: its number in MIDR_EL1."""
    without_dot: bool = False
    """Whether it lacks products of 8 bits that are summed in 32."""
    saturates: bool = False
    """Whether its fastest u8 x s8 product sums pairs in 16 bits."""
    wanted: str | None = None
    """An instruction set that the emulator must know for the model to be what it stands for."""


EMULATED = (
    Processor(
        "Haswell", "x86_64", "Haswell", "AVX2 without VNNI", without_dot=True, saturates=True
    ),
    Processor("Cascade Lake", "x86_64", "Cascadelake-Server", "AVX512-VNNI", wanted="avx512vnni"),
    Processor(
        "Cortex-A72",
        "aarch64",
        "cortex-a72",
        "Raspberry Pi 4: no dot product",
        0xD08,
        without_dot=True,
    ),
    Processor("Cortex-A76", "aarch64", "cortex-a76", "Raspberry Pi 5: dot product", 0xD0B),
    Processor("Arm max", "aarch64", "max", "newer Arm: i8mm, SVE", 0xD49),
)
BY_NAME = {one.name: one for one in EMULATED}


@functools.cache
def emulator(machine: str) -> str | None:
    """Return the command that emulates a machine's programs, or None where it is not installed."""
    return shutil.which(f"qemu-{machine}") or shutil.which(f"qemu-{machine}-static")


@functools.cache
def lacking(one: Processor) -> str | None:
    """Say why a processor cannot be emulated here, or None."""
    command = emulator(one.machine)
    if command is None:
        return f"no qemu-{one.machine}: apt-get install qemu-user"
    if one.wanted is None:
        return None
    # The emulator runs a model without what it cannot do, and says so.
    told = subprocess.run(
        [command, "-cpu", str(one.model), "/bin/true"], capture_output=True, text=True, check=False
    )
    if told.returncode or one.wanted in told.stderr:
        return f"{command} cannot emulate {one.wanted}"
    return None
