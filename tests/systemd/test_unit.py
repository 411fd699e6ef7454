"""The unit as systemd itself reads it, and the claims of its comments tried on this kernel."""

import configparser
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agent.errors import BadConfig

UNITS = Path(__file__).parents[2] / "systemd"
PR_SET_MDWE = 65  # prctl(2), Linux 6.3

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed here"
)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy whose command exists on this machine; all else is as installed."""
    text = (UNITS / "trimtab.service").read_text()
    assert "\nExecStart=/opt/trimtab/bin/trimtab agent\n" in text
    copy = tmp_path / "trimtab.service"
    copy.write_text(text.replace("/opt/trimtab/bin/trimtab agent", "/bin/true"))
    return copy


def _directives() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys keep their case
    parser.read(UNITS / "trimtab.service")
    return parser


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@needs_systemd
def test_systemd_reads_the_unit_without_a_word(unit: Path) -> None:
    found = _analyze("verify", unit)
    # It exits with 0 on unknown keys, and only says so.
    assert (found.returncode, found.stderr) == (0, "")


@needs_systemd
def test_the_check_would_notice_a_misspelt_directive(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSecs="))
    assert "WatchDogSecs" in _analyze("verify", unit).stderr


@needs_systemd
def test_the_drop_in_for_pytorch_is_read_and_lifts_one_restriction(unit: Path) -> None:
    folder = unit.with_name("trimtab.service.d")
    folder.mkdir()
    shutil.copy(UNITS / "recover.conf", folder)
    found = _analyze("verify", unit)
    assert (found.returncode, found.stderr) == (0, "")
    assert (UNITS / "recover.conf").read_text().splitlines()[-2:] == [
        "[Service]",
        "MemoryDenyWriteExecute=no",
    ]


@needs_systemd
def test_the_exposure_is_that_of_a_hardened_unit(unit: Path) -> None:
    found = _analyze("security", "--offline=true", "--no-pager", "--threshold=22", unit)
    assert found.returncode == 0, found.stdout[-2000:]


@needs_systemd
def test_the_same_check_refuses_a_bare_unit(tmp_path: Path) -> None:
    bare = tmp_path / "bare.service"
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    found = _analyze("security", "--offline=true", "--no-pager", "--threshold=22", bare)
    assert found.returncode != 0


def test_a_configuration_that_cannot_be_used_is_not_started_again() -> None:
    service = _directives()["Service"]
    assert service["RestartPreventExitStatus"] == str(BadConfig.exit_code)
    assert service["Restart"] == "always"


def test_the_watchdog_leaves_time_for_two_missed_beats() -> None:
    service = _directives()["Service"]
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert int(service["WatchdogSec"]) >= 30


def test_nothing_hides_the_files_by_which_the_device_is_known() -> None:
    service = _directives()["Service"]
    assert "ProcSubset" not in service
    assert "PrivateIPC" not in service
    assert service["ProtectControlGroups"] == "yes"


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not here")
def test_the_sysusers_file_makes_the_user_that_the_unit_names(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "trimtab.sysusers")],
        check=True, capture_output=True,
    )  # fmt: skip
    users = (tmp_path / "etc/passwd").read_text().splitlines()
    name, *_, home, shell = next(line for line in users if line.startswith("trimtab:")).split(":")
    assert name == _directives()["Service"]["User"] == _directives()["Service"]["Group"]
    assert home == "/var/lib/trimtab"
    assert shell.endswith("nologin")


def test_onnxruntime_runs_where_memory_is_never_writable_and_executable() -> None:
    if tuple(map(int, platform.release().split("-")[0].split(".")[:2])) < (6, 3):
        pytest.skip("PR_SET_MDWE needs Linux 6.3")
    script = textwrap.dedent(
        f"""
        import ctypes, mmap
        assert ctypes.CDLL(None).prctl({PR_SET_MDWE}, 1, 0, 0, 0) == 0
        try:
            mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        except PermissionError:
            pass
        else:
            raise SystemExit("the kernel does not refuse")
        import numpy, onnxruntime
        from onnx import TensorProto, helper, numpy_helper
        weights = numpy_helper.from_array(numpy.ones((4, 3, 3, 3), "f"), "w")
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])], [weights],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
        ).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        print(float(session.run(None, {{"x": numpy.ones((1, 3, 8, 8), "f")}})[0].max()))
        """
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout.strip()) == (0, "27.0"), found.stderr
