"""Starts, limits, reads and kills a child process of ours, as a group.

Limits are set from outside (prlimit, /proc) right after the start, because code between fork
and exec is not safe in a process with threads.
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unavailable

LINE_BYTES = 16 * 1024 * 1024
"""The longest line that a child may write."""


PRIVACY = {"ORT_DISABLE_TELEMETRY": "1"}
"""onnxruntime's official wheels report to their vendor unless this is set before their import.
What runs on a device is nobody else's business."""


@dataclass(frozen=True)
class Limits:
    """What a child may take from the device."""

    idle: bool = False
    """Runs only on what nobody else wants: nice 19 and SCHED_IDLE."""
    data_mib: float | None = None
    """RLIMIT_DATA: an allocation beyond it fails in the child."""
    first_to_die: bool = False
    """oom_score_adj 1000: when memory ends, the kernel takes this one."""


async def start(
    module: str,
    *arguments: str,
    limits: Limits = Limits(),
    pass_fds: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
    stderr: int | None = None,
) -> asyncio.subprocess.Process:
    """Start `python -P -m module arguments` in a session of its own, with pipes to and from it.

    Raises:
        Unavailable: the device has no process or memory left for it.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module, *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            env={**os.environ, **PRIVACY, **(environment or {})},
            start_new_session=True,
            limit=LINE_BYTES,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"cannot start {module}: {error}") from error
    with contextlib.suppress(ProcessLookupError):  # it may have died already; wait() tells
        _limit(process.pid, limits)
    return process


def _limit(pid: int, limits: Limits) -> None:
    if limits.data_mib is not None:
        bound = int(limits.data_mib * 2**20)
        resource.prlimit(pid, resource.RLIMIT_DATA, (bound, bound))
    if limits.idle:
        os.setpriority(os.PRIO_PROCESS, pid, 19)
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        # Between sessions the kernel weighs whole autogroups (sched(7)): without this a session of
        # its own would get as much as the server, idle as its only process may be.
        with contextlib.suppress(OSError):  # a kernel without them needs no more
            Path(f"/proc/{pid}/autogroup").write_text("19")
    if limits.first_to_die:
        with contextlib.suppress(OSError):  # raising one's own score needs no privilege
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kill the child's whole group and wait until it is gone. Fine to call twice."""
    # Dead or not: what it started is in its group, and would go on.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:  # something in its group is another user's
        # Not as a rule: Popen looks whether it is dead first, and takes its exit status from those
        # who wait for it, who would then report 255.
        if process.returncode is None:
            process.kill()
    await process.wait()


def describe_exit(returncode: int) -> str:
    """Say in words how a child ended: `exit code 3`, `killed by SIGILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
