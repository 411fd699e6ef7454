"""What the demo shows: events as lines, the table, a bar only where there is a terminal."""

import io

import pytest
from rich.console import Console

from agent.protocol.events import Event
from deploy.demo import figures, report, screen, story
from tests.deploy.test_demo_figures import SHA_A, measurement, sketch


def event(kind: str, **fields: object) -> Event:
    return Event.model_validate({"device": "demo", "at_s": 0, "kind": kind, **fields})


def some_report() -> report.Report:
    def side(label: str, size: int, memory: float | None, scale: float) -> report.Side:
        served = figures.Served(
            3, 0, sketch(1.0 * scale, 2.0 * scale, 3.0 * scale), 2.0 * scale, 0.004 * scale, "x"
        )
        client = (2.0 * scale, 4.0 * scale, 6.0 * scale)
        return report.Side(label, size, memory, client, served)

    return report.Report(
        model="magika",
        original=side("original", 4_000_000, 20.0, 1.0),
        variant=side("int8 [Conv]", 1_000_000, None, 0.5),
        agreement=figures.proportion([True] * 99 + [False]),
        accuracy=(figures.proportion([True, False]), figures.proportion([True, True])),
        kinds=(figures.KindRow("py", 2, (1, 2)),),
        notes=("noise was 3 % [as said]",),
    )


def test_the_table_says_what_the_figures_say() -> None:
    found = {row[0].strip(): row[1:] for row in report.rows(some_report())}
    assert found["file"] == ("4.00 MB", "1.00 MB", "0.25x")
    assert found["memory that it adds"] == ("20.0 MiB", "-", "-")
    assert found["latency p50, HTTP client"] == ("4.00 ms", "2.00 ms", "0.50x")
    assert found["latency p95, HTTP client"] == ("6.00 ms", "3.00 ms", "")
    assert found["CPU time per inference"] == ("2.00 ms", "1.00 ms", "0.50x")
    assert found["energy per inference"] == ("4.00 mJ", "2.00 mJ", "0.50x")
    assert found["same answer as the original"][1].startswith("0.990 [0.94")
    assert found["right by file extension"] == ("0.500", "1.000", "of 2")
    assert found[".py"] == ("1", "2", "of 2")


def plain(width: int = 80) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width, highlight=False), text


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_a_plain_terminal_and_keeps_square_brackets(width: int) -> None:
    out, text = plain(width)
    report.show(some_report(), on=out)
    shown = text.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert "int8 [Conv]" in shown
    assert "[as said]" in shown
    assert "\x1b" not in shown  # no colours in a pipe


def test_a_rejected_candidate_is_shown_with_its_reason_and_figures() -> None:
    told = story.tell(
        event(
            "tried",
            message="agreement 0.31 below 0.98",
            figures={"label": "int8", "accepted": False, "measurement": measurement().model_dump()},
        )
    )
    assert isinstance(told, story.Line)
    assert (told.word, told.tone) == ("rejected", "bad")
    assert told.text == "int8: agreement 0.31 below 0.98"
    assert "1.00 MB (0.25x)" in told.detail
    assert "0.990 [0.970, 1.000] on 100" in told.detail


def test_every_kind_of_event_has_something_to_show() -> None:
    told = [
        story.tell(event("state", state="fetching")),
        story.tell(event("state", state="live", message="it serves")),
        story.tell(event("progress", message="pulling", figures={"fraction": 0.5})),
        story.tell(event("tried", figures={"accepted": True, "measurement": {"broken": 1}})),
        story.tell(event("swapped", figures={"label": "original", "sha256": SHA_A, "load_ms": 7})),
        story.tell(event("refused", message="cannot trust it")),
        story.tell(event("crashed", message="killed by SIGILL")),
        story.tell(event("corrupt", message="a chunk")),
    ]
    out, text = plain()
    with screen.Screen(out) as shown:
        for one in told:
            shown.show(one)
    lines = text.getvalue()
    for words in ("fetching", "it serves", "pulling", "a variant", "load 7 ms", "SIGILL", "chunk"):
        assert words in lines
    assert max(map(len, lines.splitlines())) <= 80


def test_in_a_pipe_progress_is_a_line_only_where_its_words_change() -> None:
    out, text = plain()
    with screen.Screen(out) as shown:
        for done in range(0, 101, 5):
            counted = {"stage": "pull", "fraction": done / 100, "done_bytes": done, "bytes": 100}
            shown.show(story.tell(event("progress", message="pulling", figures=counted)))
            words = {"stage": "looking", "fraction": done / 100}
            shown.show(story.tell(event("progress", message="int8", figures=words)))
        shown.show(story.tell(event("progress", message="int4", figures={"fraction": 0.1})))
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "looking     int8" in lines[0]
    assert "int4" in lines[1]


def test_on_a_terminal_progress_is_a_bar_that_leaves_nothing_behind() -> None:
    text = io.StringIO()
    out = Console(file=text, width=80, force_terminal=True)
    with screen.Screen(out) as shown:
        counted = {"stage": "pull", "fraction": 0.5, "done_bytes": 5 * 10**5, "bytes": 10**6}
        shown.show(story.tell(event("progress", message="pulling", figures=counted)))
        shown.say("done", "and gone")
    assert "50 %" in text.getvalue()
    assert "0.50 MB of 1.00 MB" in text.getvalue()
    assert "and gone" in text.getvalue().rpartition("50 %")[2]


def test_a_rung_that_misses_the_budget_is_kept_not_called_fitting() -> None:
    kept = event("tried", message="size over", figures={"label": "original", "accepted": True})
    fits = event("tried", figures={"label": "int8", "accepted": True})
    words = [told.word for told in map(story.tell, (kept, fits)) if isinstance(told, story.Line)]
    assert words == ["kept", "fits"]
