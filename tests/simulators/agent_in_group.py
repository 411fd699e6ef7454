"""An agent whose device is one control group: what others do on this machine does not load it.

`python agent_in_group.py FOLDER VERSION`: it enters the group and counts the time of that alone.
"""

import os
import sys
import time
from pathlib import Path

from agent import cli
from agent.device import idleness
from tests.simulators.groups import Group

PATH = __file__


def main(folder: str, version: str) -> int:
    """Enter the group, and run the agent."""
    group = Group(Path(folder), int(version))

    class Meter(idleness.Meter):
        """Reads the group's time in place of the machine's; the rest is the real thing."""

        def _ticks_now(self) -> tuple[int, int]:
            total_s = time.monotonic() * len(self._cpus)
            return round(group.cpu_s() * 100), round(total_s * 100)

    group.take(os.getpid())
    idleness.Meter = Meter  # type: ignore[misc]  # before anybody makes one
    return cli.main(["agent"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
