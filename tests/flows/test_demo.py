"""The demo as a person runs it: one command, from nothing to the table, and clean afterwards."""

import contextlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from tests.simulators import models

MARK = "DEMO_UNDER_TEST"
COMMAND = "import sys; from deploy.cli import main; sys.exit(main(sys.argv[1:]))"


class Running:
    """One demo; its output is read as it comes."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.said = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until the output matches."""
        assert self.process.stdout is not None
        while (found := re.search(pattern, self.said)) is None:
            line = self.process.stdout.readline()
            assert line, f"it ended without {pattern!r}:\n{self.said}"
            self.said += line
        return found

    def end(self) -> int:
        """Read the rest; return the exit code."""
        assert self.process.stdout is not None
        self.said += self.process.stdout.read()
        return self.process.wait()

    def children(self) -> list[psutil.Process]:
        """Every process that the demo has started, by what all of them inherit."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(MARK) == str(self.folder)
                if ours and process.pid != self.process.pid:
                    found.append(process)
        return found

    def assert_clean(self, *, logs: int = 0) -> None:
        """Nothing is left: no process, no file but the log that an error names."""
        deadline = time.monotonic() + 20
        while self.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.children()
        left = sorted(path.name for path in self.folder.iterdir())
        assert len(left) == logs, left
        assert all(name.startswith("trimtab-demo-agent-") for name in left)


@contextlib.contextmanager
def demo(*arguments: str, before: str = "") -> Iterator[Running]:
    """Start the demo with its temporary files in a folder of its own, which has a short path.

    `before` is run first: what it finds of its surroundings.
    """
    temporary = Path(tempfile.mkdtemp(prefix="demo-"))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", before + COMMAND, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ
        | {"TMPDIR": str(temporary), MARK: str(temporary)}
        | {"COLUMNS": "80", "PYTHONUNBUFFERED": "1"},
    )
    running = Running(process, temporary)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for child in running.children():
            child.kill()
        process.communicate()
        shutil.rmtree(temporary)


def small_model(folder: Path) -> list[str]:
    """A model that no variant is smaller than, with inputs, as options: its search is short."""
    model = models.mlp(folder / "small.onnx", hidden=8)
    np.savez(folder / "small.npz", **models.sample_inputs(model, 60, 1))
    return ["--model", str(model), "--calibration", str(folder / "small.npz")]


@pytest.mark.timeout(280)  # two minutes of it may go to compressing
def test_the_whole_way_from_nothing_to_the_table() -> None:
    with demo("--files", "60") as running:
        assert running.end() == 0, running.said
        running.assert_clean()
    said = running.said
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80
    # The story: pulled, the original first and too large, candidates left with a reason, a swap.
    for pattern in (
        r"published +magika@1: 2 files",
        r"pulled +in \d",
        r"serving +original",
        r"kept +original: size 3\.02 MiB over budget 0\.85 MiB",
        r"left +\d+ not tried, as",
        r"fits +\S",
        r"serving +(?!original)\S",
    ):
        assert re.search(pattern, said), f"{pattern!r} is not in:\n{said}"
    size = re.search(r"file +3\.16 MB +(\d\.\d+) MB", said)
    assert size is not None
    assert float(size[1]) <= 0.90
    agreement = re.search(r"same answer as the original +- +(\d\.\d+) \[", said)
    assert agreement is not None
    assert float(agreement[1]) >= 0.95
    for row in ("latency p50, in the server", "CPU time per inference", "energy per inference"):
        assert re.search(row + r" +\d+\.\d+ \S+ +\d+\.\d+ \S+ +\d\.\d+x", said), row


def test_a_model_that_cannot_fit_stays_as_it_is_and_keep_leaves_it_serving(tmp_path: Path) -> None:
    arguments = [*small_model(tmp_path), "--budget", "size_mib=0.0001", "--keep"]
    with demo(*arguments) as running:
        running.until(r"original +it goes on serving: cannot fit small@1")
        url = running.until(r"inference +(http://\S+)/v2")[1]
        page = running.until(r"status +(http://\S+)")[1]
        running.until("Ctrl-C stops everything")
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        connection.request("GET", "/v2/models/small/ready")
        assert connection.getresponse().status == 200
        connection.close()
        connection = http.client.HTTPConnection(urlsplit(page).netloc, timeout=10)
        connection.request("GET", "/metrics")
        assert b"trimtab" in connection.getresponse().read()
        connection.close()
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0, running.said
        running.assert_clean()


@pytest.mark.parametrize(
    "before", ["", "import signal; signal.signal(2, signal.SIG_IGN); "], ids=["", "in background"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_midway_it_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, before: str
) -> None:
    with demo(*small_model(tmp_path), before=before) as running:
        running.until("is online")
        assert running.children()
        running.process.send_signal(number)
        assert running.end() == 130, running.said
        assert running.said.rstrip().endswith("demo: stopped")
        assert "Traceback" not in running.said
        running.assert_clean()


def test_an_agent_that_dies_is_one_clear_error_with_its_log(tmp_path: Path) -> None:
    with demo(*small_model(tmp_path)) as running:
        running.until("is online")
        (agent,) = [p for p in running.children() if p.cmdline()[-2:] == ["agent", "agent"]]
        agent.kill()
        assert running.end() == 4, running.said
        found = re.search(
            r"demo: cannot go on: the agent ended \(killed by SIGKILL\)", running.said
        )
        assert found, running.said
        log = re.search(r"the agent's log: (\S+)", running.said)
        assert log is not None
        assert Path(log[1]).exists()
        running.assert_clean(logs=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--calibration", "x.npz"],
        ["--model", "none.onnx"],
        ["--model", "none.onnx", "--calibration", "none.npz"],
        ["--budget", "size=1"],
        ["--files", "3"],
    ],
    ids=" ".join,
)
def test_bad_input_is_said_before_anything_is_started(arguments: list[str]) -> None:
    with demo(*arguments) as running:
        assert running.end() == 2, running.said
        assert "demo: cannot " in running.said
        assert "Traceback" not in running.said
        assert "broker" not in running.said
        running.assert_clean()


def test_its_options_are_listed_with_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", COMMAND, "demo", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for words in ("--model", "--keep", "--budget FIELD=VALUE", "examples:"):
        assert words in done.stdout
    assert not done.stderr
