"""Runs Python on an emulated processor, which sees its own kind of /proc and /sys."""

import functools
import json
import os
import platform
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.device import profile
from agent.errors import Unavailable
from compression.job import DeviceClass
from tests.emulated import census, features, processors, roots
from tests.emulated.processors import Processor
from tests.fixtures import wheels

NATIVE = Processor("this machine", platform.machine(), None, "no emulator")
SECONDS = 3000


def need(one: Processor) -> None:
    """Skip the test where a processor cannot be emulated; make its file tree where it can."""
    if reason := processors.lacking(one):
        pytest.skip(reason)
    if one.machine != "aarch64" and one.machine != platform.machine():
        pytest.skip(f"no Python for {one.machine} on {platform.machine()}")
    try:
        command(one)
    except Unavailable as error:
        pytest.skip(str(error))


def ask(one: Processor, mode: str, *arguments: str) -> Any:
    """Return what `tests.emulated.inside` answers on a processor."""
    return _json(run(one, "-m", "tests.emulated.inside", mode, *arguments))


def run(one: Processor, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run Python on a processor, in the project's root."""
    words = [*command(one), *arguments]
    return _child(words, site=roots.arm().site if one.machine == "aarch64" else None, check=check)


def trimtab(one: Processor, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the product's own command on a processor, with all its children."""
    python = folder / "python"
    # The system cannot start a program of another architecture, but what emulates it.
    python.write_text(f'#!/bin/sh\nexec {shlex.join(command(one))} "$@"\n')
    python.chmod(0o755)
    return run(one, "-m", "tests.emulated.inside", "trimtab", str(python), *arguments, check=False)


def instructions(one: Processor, log: Path, mode: str) -> Counter[str]:
    """Count the integer multiplications that a processor translated in one mode of `inside`."""
    emulator, *rest = command(one)
    words = [emulator, "-d", "in_asm", "-D", str(log), *rest, "-m", "tests.emulated.inside", mode]
    _child(words, site=roots.arm().site if one.machine == "aarch64" else None)
    with log.open(errors="replace") as lines:
        return census.READERS[one.machine](lines)


@functools.cache
def command(one: Processor) -> tuple[str, ...]:
    """Return the words before Python's own arguments.

    Raises:
        Unavailable: its file tree cannot be made.
    """
    if one.model is None:
        return (sys.executable,)
    emulator = str(processors.emulator(one.machine))
    if one.machine == "aarch64":
        arm = roots.arm()
        bare = (emulator, "-cpu", one.model, "-L", str(arm.folder), str(arm.python))
        told = _features(bare)
        flags = features.arm_flags(told["hwcap"], told["hwcap2"])
        files = {"proc/cpuinfo": features.arm_cpuinfo(flags, part=one.part), **features.one_core()}
        tree = roots.overlay(one.model, files, over=arm.folder)
        return (emulator, "-cpu", one.model, "-L", str(tree), str(arm.python))
    told = _features((emulator, "-cpu", one.model, sys.executable))
    text = features.x86_cpuinfo(features.x86_flags(told["numpy"]), name=one.model)
    tree = roots.overlay(one.model, {"proc/cpuinfo": text}, over=None)
    return (emulator, "-cpu", one.model, "-L", str(tree), sys.executable)


def own_class() -> DeviceClass:
    """Return what this machine itself is."""
    return profile.device_class()


def device_class(one: Processor) -> DeviceClass:
    """Return what the product takes a processor for, there."""
    return DeviceClass.model_validate(ask(one, "class"))


def _features(words: tuple[str, ...]) -> Any:
    return _json(_child([*words, "-m", "tests.emulated.inside", "features"]))


def _child(
    words: list[str], *, site: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(one) for one in (site, wheels.ROOT) if one)
    # Another machine's bytecode has another's name, but the project's folders are not its own.
    more = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=wheels.ROOT, env={**os.environ, **more}, timeout=SECONDS,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or not check, f"{words}: {done.returncode}\n{done.stderr[-2000:]}"
    return done


def _json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout.strip().splitlines()[-1])
