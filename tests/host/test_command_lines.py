"""What is wrong on a command line of the device is one sentence and exit code 2."""

from pathlib import Path

import pytest

from agent import cli

COMPRESS = ["compress", "x.onnx", "--calibration", "x.npz", "--out", "out"]
MEASURE = ["measure", "x.onnx", "--inputs", "x.npz"]


@pytest.mark.parametrize(
    "words",
    [
        [*COMPRESS, "--minutes", "0"],
        [*COMPRESS, "--work-memory-mib", "-1"],
        [*COMPRESS, "--size-ratio", "0"],
        [*MEASURE, "--threads", "999"],
        [*MEASURE, "--seconds", "inf"],
    ],
)
def test_a_value_out_of_range_is_bad_input(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("x.onnx", "x.npz"):
        (tmp_path / name).write_bytes(b"")
    assert cli.main(words) == 2
    assert "cannot" in capsys.readouterr().err
