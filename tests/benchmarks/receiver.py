"""A process that does nothing but pull one file: prints what that cost, as JSON.

python -m tests.benchmarks.receiver PORT REF.json FOLDER WINDOW
"""

import asyncio
import json
import resource
import sys
import time
from functools import partial
from pathlib import Path

from agent.config import Broker
from agent.link.mqtt import Link
from agent.link.pull import blobs
from agent.protocol.manifest import FileRef
from agent.protocol.topics import Topics
from agent.store.download import fetch_file


def status_kib(field: str) -> int:
    """One figure of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def written_bytes() -> int:
    """Bytes that this process has caused to be written to the disk (proc(5), io)."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


async def main() -> None:
    """Connect, pull, and say what it cost from the moment at which it was connected."""
    port, ref_path, folder, window = sys.argv[1:]
    ref = FileRef.model_validate_json(Path(ref_path).read_bytes())
    async with Link(Broker(host="127.0.0.1", port=int(port)), client_id="receiver") as link:
        await link.connected(15)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before_kib, before_bytes = status_kib("VmRSS"), written_bytes()
        used = resource.getrusage(resource.RUSAGE_SELF)
        begun_s = time.perf_counter()
        fetched = await fetch_file(
            ref,
            get=lambda names: blobs(
                link, topics=Topics(), names=names, timeout_s=30, window=int(window)
            ),
            target=Path(folder) / "model.onnx",
            window=int(window),
        )
        seconds = time.perf_counter() - begun_s
    now = resource.getrusage(resource.RUSAGE_SELF)
    spent = partial(getattr, now)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_s": spent("ru_utime") + spent("ru_stime") - used.ru_utime - used.ru_stime,
                "rss_growth_kib": status_kib("VmHWM") - before_kib,
                "written_bytes": written_bytes() - before_bytes,
                "sent_bytes": fetched.sent_bytes,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
