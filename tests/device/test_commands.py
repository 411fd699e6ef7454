"""`trimtab device` and `trimtab config` as a person and as a program call them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import cli, config
from compression.job import Budget, DeviceClass


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRIMTAB_CONFIG", raising=False)
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "none.toml")


def test_device_prints_json_that_reads_back_as_the_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["device", "--json", "--rate", "5"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert DeviceClass(**document["device_class"]).cores == document["device"]["cores"]
    assert Budget(**document["default_budget"]).latency_p95_ms == 200.0
    assert len(document["because"]) == 6


def test_device_prints_a_table_with_every_term_of_the_budget(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["device", "--state-dir", str(tmp_path)]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for shown in ("board", "usable of", "onnxruntime", "MiB available", "peak_memory_mib", "J ("):
        assert shown in words


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_device_refuses_a_rate_that_is_none(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["device", f"--rate={rate}"]) == 2
    assert "cannot plan for" in capsys.readouterr().err


def test_device_loads_no_heavy_library() -> None:
    script = (
        "import sys; from agent import cli; cli.main(['device', '--json']);"
        "print([m for m in ('numpy', 'torch', 'onnxruntime') if m in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stderr.strip() == "[]"


def _settings(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    assert cli.main(["config", "--json", *arguments]) == 0
    settings: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)["settings"]
    return settings


def test_config_tells_where_each_setting_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text('http_port = 9000\nspool_mib = 4\n[broker]\nhost = "broker.lan"\n')
    monkeypatch.setenv("TRIMTAB_HTTP_PORT", "9100")
    monkeypatch.setenv("trimtab_broker__port", "8883")
    shown = _settings(capsys, "--file", str(file))
    assert (shown["http_port"]["value"], shown["http_port"]["source"]) == (9100, "environment")
    assert (shown["broker.port"]["value"], shown["broker.port"]["source"]) == (8883, "environment")
    assert (shown["broker.host"]["value"], shown["broker.host"]["source"]) == ("broker.lan", "file")
    assert (shown["spool_mib"]["source"], shown["spool_mib"]["default"]) == ("file", 8.0)
    assert shown["prefix"]["source"] == "default"
    assert "certificate is checked" in str(shown["broker.ca_file"]["about"])


def test_config_shows_every_setting_of_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    nested = {"broker": config.Broker, "idle": config.Idle}
    wanted = set(config.Settings.model_fields) - set(nested)
    wanted |= {f"{group}.{name}" for group, kind in nested.items() for name in kind.model_fields}
    assert set(_settings(capsys)) == wanted


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_never_shows_a_password(
    form: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_BROKER__PASSWORD", "hunter2")
    assert cli.main(["config", *form]) == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    assert "********" in out


def test_config_with_a_wrong_file_is_exit_78_and_names_the_setting(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text("http_prot = 9000\n")
    assert cli.main(["config", "--file", str(file)]) == 78
    assert (
        f"cannot use the configuration {file}: unknown field 'http_prot'" in capsys.readouterr().err
    )


@pytest.mark.parametrize("content", [b"not = [toml", b"\xff\xfe\x00", None])
def test_config_that_cannot_be_read_is_exit_78(
    content: bytes | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "trimtab.toml"
    if content is not None:
        file.write_bytes(content)
    assert cli.main(["config", "--file", str(file)]) == 78
    assert f"cannot read the configuration {file}" in capsys.readouterr().err
