"""What a child may take of the device is set where the kernel looks for it."""

import os
from pathlib import Path

import pytest

from agent.host import children
from agent.host.children import Limits


@pytest.mark.parametrize("idle", [True, False])
async def test_an_idle_child_yields_to_other_sessions_too(idle: bool) -> None:
    child = await children.start("compression.worker", limits=Limits(idle=idle))
    try:
        scheduler = os.sched_getscheduler(child.pid)
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == (19 if idle else own)
        assert scheduler == (os.SCHED_IDLE if idle else os.SCHED_OTHER)
        group = Path(f"/proc/{child.pid}/autogroup")
        if group.exists():  # a kernel may be built without
            assert group.read_text().split()[-1] == ("19" if idle else "0")
    finally:
        await children.kill(child)
