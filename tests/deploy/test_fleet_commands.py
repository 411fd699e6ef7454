"""`trimtab-fleet` as an operator types it, against a real broker and small true devices."""

import asyncio
import json
import stat
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from securesystemslib.signer import Key

from agent.protocol.commands import Deploy, Infer, Recompress, SetBudget
from compression.job import Budget
from deploy import cli
from deploy.commandline import options
from tests.deploy.fake_device import FakeDevice
from tests.simulators import models
from tests.simulators.broker import RunningBroker, free_port

LIVE = (("verifying", ""), ("fetching", ""), ("live", "meets the budget"))


async def fleet(broker: RunningBroker, key_file: Path, *words: str) -> int:
    where = ["--broker", f"127.0.0.1:{broker.port}"]
    key = [] if words[0] in {"status", "watch", "unpublish"} else ["--key", str(key_file)]
    return await asyncio.to_thread(cli.main, [*words, *where, *key])


async def test_ping_is_answered_by_the_one_device(
    broker: RunningBroker, key_file: Path, keys: tuple[Key, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with FakeDevice(broker.settings(), "porch", keys) as device:
        assert await fleet(broker, key_file, "ping", "--device", "porch") == 0
    assert "porch: accepted" in capsys.readouterr().out
    assert device.obeyed[0].audience == "device/porch"


async def test_no_answer_is_exit_code_4_and_names_the_device(
    broker: RunningBroker, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = await fleet(broker, key_file, "ping", "--device", "gone", "--timeout", "0.3")
    assert code == 4
    assert "cannot ask device gone: no answer in 0.3 s" in capsys.readouterr().err


async def test_no_broker_is_exit_code_4(
    key_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "CONNECT_S", 0.3)
    words = ["status", "--broker", f"127.0.0.1:{free_port()}"]
    assert await asyncio.to_thread(cli.main, words) == 4
    assert "cannot reach broker 127.0.0.1:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("story", "code", "says"),
    [
        (LIVE, 0, ""),
        ((("verifying", ""), ("refused", "peak 212 MiB over budget 180 MiB")), 3, "peak 212 MiB"),
        ((("verifying", ""), ("failed", "the worker died")), 4, "the worker died"),
        ((("refuse at once", "version 1 is older than 4"),), 3, "older than 4"),
    ],
)
async def test_deploy_waits_for_the_end_and_its_exit_code_says_which(
    *, story: tuple[tuple[str, str], ...], code: int, says: str, broker: RunningBroker,
    key_file: Path, keys: tuple[Key, ...], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with FakeDevice(broker.settings(), "porch", keys, story=story) as device:
        words = ["deploy", "--model", "net", "--version", "1", "--device", "porch", "--wait"]
        budget = ["--budget", "size_mib=4", "--budget", "latency_p95_ms=2.5"]
        order = [*words, *budget, "--strategy", "compress-first", "--allow-unverified"]
        found = await fleet(broker, key_file, *order)
    said = capsys.readouterr()
    assert found == code
    assert says in said.err
    body = device.obeyed[0].body
    assert isinstance(body, Deploy)
    assert (body.budget.size_mib, body.budget.latency_p95_ms) == (4, 2.5)
    assert (body.strategy, body.allow_unverified) == ("compress-first", True)
    for state, _ in story[:-1]:
        assert f"porch state net@1 {state}" in said.out


async def test_a_group_is_followed_until_its_last_device_is_done(
    broker: RunningBroker, key_file: Path, keys: tuple[Key, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    async with AsyncExitStack() as stack:
        for name in ("a", "b", "c"):
            device = FakeDevice(broker.settings(), name, keys, story=LIVE)
            await stack.enter_async_context(device)
        words = ["deploy", "--model", "net", "--version", "1", "--group", "lab", "--wait"]
        assert await fleet(broker, key_file, *words, "--timeout", "1.5", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["device"] for line in lines if line.get("state") == "live"} == {"a", "b", "c"}


async def test_a_command_signed_by_a_stranger_is_not_obeyed(
    broker: RunningBroker, key_file: Path, keys: tuple[Key, ...], tmp_path: Path
) -> None:
    assert cli.main(["keygen", str(tmp_path / "stranger")]) == 0
    async with FakeDevice(broker.settings(), "porch", keys) as device:
        stranger = tmp_path / "stranger" / "fleet.key"
        words = ["remove", "--model", "net", "--device", "porch", "--timeout", "0.5"]
        assert await fleet(broker, stranger, *words) == 4
    assert device.obeyed == []


async def test_status_shows_every_device_from_what_is_retained(
    broker: RunningBroker, key_file: Path, keys: tuple[Key, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in ("porch", "attic"):
        async with FakeDevice(broker.settings(), name, keys):
            pass
    assert await fleet(broker, key_file, "status", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["device"] for line in lines] == ["attic", "porch"]
    assert await fleet(broker, key_file, "status") == 0
    assert "porch" in capsys.readouterr().out


async def test_watch_prints_events_as_they_come(
    broker: RunningBroker, key_file: Path, keys: tuple[Key, ...]
) -> None:
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", "import sys; from deploy.cli import main; sys.exit(main())",
        "watch", "--json", "--broker", f"127.0.0.1:{broker.port}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert watching.stdout is not None
    async with FakeDevice(broker.settings(), "porch", keys, story=LIVE):
        reading = asyncio.create_task(watching.stdout.readline())
        words = ["deploy", "--model", "net", "--version", "1", "--device", "porch"]
        async with asyncio.timeout(30):
            while not reading.done():  # it takes a moment until the child has subscribed
                await fleet(broker, key_file, *words)
                await asyncio.wait({reading}, timeout=0.2)
    watching.kill()
    await watching.wait()
    assert json.loads(reading.result())["device"] == "porch"


async def test_a_model_is_published_and_taken_off_again(
    broker: RunningBroker, key_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(models.cnn(tmp_path / "net.onnx"))
    words = ["publish", model, "--name", "net", "--version", "1", "--outputs", "logits=logits:1"]
    assert await fleet(broker, key_file, *words) == 0
    assert "output logits=logits,axis=1\n" in capsys.readouterr().out
    assert await fleet(broker, key_file, "unpublish", "--name", "net", "--version", "1") == 0
    assert "unpublished net@1" in capsys.readouterr().out


def test_keygen_makes_a_private_key_for_its_owner_alone_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "keys"
    assert cli.main(["keygen", str(folder)]) == 0
    private = (folder / "fleet.key").read_bytes()
    assert stat.S_IMODE((folder / "fleet.key").stat().st_mode) == 0o600
    assert b"PUBLIC KEY" in (folder / "fleet.pub").read_bytes()
    assert cli.main(["keygen", str(folder)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert (folder / "fleet.key").read_bytes() == private


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget", "speed=3"], "unknown field 'speed'"),
        (["--budget", "size_mib"], "FIELD=VALUE"),
        (["--budget", "size_mib=-1"], "size_mib"),
        (["--budget", "cpu_share=0.5"], "request_rate_hz"),
        (["--version", "0"], "version"),
        (["--model", "../x"], "model name"),
        (["--broker", "host:99999"], "port"),
        (["--prefix", "a/#"], "topic prefix"),
    ],
)
def test_what_is_wrong_is_named_and_exits_with_2(
    words: list[str], says: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["deploy", "--model", "net", "--version", "1", "--device", "d", "--key", str(key_file)]
    assert cli.main([*given, *words]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in cli.TABLE if name != "demo"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    assert f"trimtab-fleet {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["set-budget", "--model", "net", "--budget", "size_mib=2", "--observe-minutes", "0"],
         SetBudget(model="net", budget=Budget(size_mib=2), observe_minutes=0)),
        (["recompress", "--model", "net", "--recover-minutes", "60", "--collect-hours", "0.1"],
         Recompress(model="net", recover_minutes=60, collect_hours=0.1, collect_minutes=6)),
        (["recompress", "--model", "net", "--now", "--collect-inputs", "0"],
         Recompress(model="net", when="now", collect_inputs=0)),
        (["infer", "--model", "net", "--version", "3", "--request", '{"inputs": []}'],
         Infer(model="net", version=3, request={"inputs": []})),
    ],
)  # fmt: skip
async def test_what_is_asked_of_a_group_reaches_every_device_of_it(
    words: list[str], wanted: object, broker: RunningBroker, key_file: Path, keys: tuple[Key, ...],
) -> None:  # fmt: skip
    async with (
        FakeDevice(broker.settings(), "porch", keys) as porch,
        FakeDevice(broker.settings(), "attic", keys) as attic,
    ):
        order = [*words, "--group", "lab", "--timeout", "1"]
        assert await fleet(broker, key_file, *order) == 0
    assert [device.obeyed[0].body for device in (porch, attic)] == [wanted, wanted]
    assert porch.obeyed[0].audience == "group/lab"


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ("{", "cannot read the request '{'"),
        ("[1]", "it is no JSON object"),
        ("@/no/such/file", "No such file"),
        (json.dumps({"x": "y" * 9000}), "at most 8192"),
    ],
)
def test_what_is_no_request_is_bad_input(
    request_: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["infer", "--model", "net", "--device", "porch", "--request", request_]
    assert cli.main(words) == 2
    assert why in capsys.readouterr().err
