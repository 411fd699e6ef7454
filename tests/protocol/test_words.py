"""The words refuse what they do not know, by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.errors import BadInput
from agent.protocol import commands, manifest, topics
from compression.job import Budget
from compression.words import explain

COMMAND = (
    '{"id": "a1b2c3d4", "audience": "device/pole-7", "issued_at_s": 1.0, "expires_at_s": 2.0,'
    ' "body": %s}'
)


def test_reads_a_command() -> None:
    body = '{"kind": "deploy", "model": "m", "version": 3, "budget": {"size_mib": 1}}'
    command = commands.parse((COMMAND % body).encode())
    assert isinstance(command.body, commands.Deploy)
    assert command.body.strategy == "improve"
    assert command.body.budget.size_mib == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"kind": "explode"}', "cannot obey command 'explode': known are deploy, "),
        ('{"kind": "ping", "loud": true}', "unknown field 'body.ping.loud'"),
        ('{"kind": "deploy", "version": 1}', "missing field 'body.deploy.model'"),
        ('{"kind": "deploy", "model": "m", "version": 0}', "body.deploy.version"),
        ('{"kind": "deploy", "model": "m", "version": 1, "budget": {"ram": 1}}', "budget.ram"),
    ],
)
def test_names_what_is_wrong_with_a_command(body: str, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        commands.parse((COMMAND % body).encode())
    assert says in str(caught.value)
    assert str(caught.value).startswith("cannot")


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_parsers(data: bytes) -> None:
    for parse in (commands.parse, manifest.parse):
        with pytest.raises(BadInput):
            parse(data)


def test_refuses_a_command_over_8_kib() -> None:
    with pytest.raises(BadInput, match="9000 bytes"):
        commands.parse(b" " * 9000)


def test_a_budget_takes_the_rest_from_a_default() -> None:
    asked = Budget(size_mib=1, threads=2)
    default = Budget(size_mib=9, peak_memory_mib=50)
    assert asked.over(default) == Budget(size_mib=1, threads=2, peak_memory_mib=50)


def test_a_cpu_share_needs_a_rate() -> None:
    with pytest.raises(ValidationError) as caught:
        Budget(cpu_share=0.5)
    assert "at which rate" in explain(caught.value)


def test_words_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Budget().size_mib = 3.0  # type: ignore[misc]  # that it is refused is the test


@given(st.text(max_size=80))
def test_only_plain_names_reach_topics_and_paths(name: str) -> None:
    try:
        topics.check_name(name, what="model name")
    except BadInput:
        return
    assert name.isascii()
    assert not set(name) & set("/+#\0\n ")
    assert name not in {".", ".."}


def test_topics_stay_within_seven_slashes() -> None:
    made = topics.Topics("a/b/c/d")
    for topic in (
        made.blob("0" * 64), made.model("m", 1), made.command("device/x"), made.command("group/g"),
        made.event("x"), made.status("x"), made.telemetry("x"), made.reply("op"),
    ):  # fmt: skip
        assert topic.count("/") <= 7


@pytest.mark.parametrize("audience", ["", "device", "device/", "device/a/b", "planet/x", "group/+"])
def test_refuses_an_audience_that_is_none(audience: str) -> None:
    with pytest.raises(BadInput):
        topics.Topics().command(audience)
