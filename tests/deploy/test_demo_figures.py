"""What the demo computes and shows, worked by hand."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.protocol.events import Event, ModelTelemetry, Telemetry
from agent.protocol.sketch import Quantiles, Sketch
from compression.job import Agreement, Measurement
from deploy.demo import figures, report, screen, story

SHA_A, SHA_B = "a" * 64, "b" * 64


def sketch(*values: float) -> Quantiles:
    made = Sketch()
    for value in values:
        made.add(value)
    return made.freeze()


def batch(sequence: int, *models: ModelTelemetry) -> Telemetry:
    return Telemetry(
        device="demo", from_s=0, to_s=1, sequence=sequence, agent_rss_mib=1, server_rss_mib=1,
        memory_available_mib=1, cpu_share=0, server_restarts=0, dropped_messages=0, models=models,
    )  # fmt: skip


def part(sha256: str, requests: int, *, joules: float | None = 1.0) -> ModelTelemetry:
    return ModelTelemetry(
        name="m", version=1, sha256=sha256, requests=requests, failures=0,
        latency_ms=sketch(*[10.0] * requests), cpu_seconds=0.5, joules=joules,
        joules_per_inference=None, energy_method="by hand",
    )  # fmt: skip


def measurement() -> Measurement:
    agreement = Agreement(
        value=0.99, low=0.97, high=1.0, kind="logits", output="y", samples=100, split="held-out"
    )
    return Measurement(
        latency_p50_ms=9, latency_p95_ms=11, original_latency_p50_ms=10,
        original_latency_p95_ms=12, latency_ratio=0.9, ratio_basis="wall", wall_ratio=0.9,
        cpu_ratio=0.9, noise=0.02, cpu_ms_per_inference=9, original_cpu_ms_per_inference=10,
        peak_memory_mib=8, original_peak_memory_mib=16, agreement=agreement,
        size_mib=1_000_000 / 2**20, original_size_mib=4_000_000 / 2**20, sqnr_db={"y": 30.0},
        threads=1, samples=100, rounds=40, method={},
    )  # fmt: skip


def event(kind: str, **fields: object) -> Event:
    return Event.model_validate({"device": "demo", "at_s": 0, "kind": kind, **fields})


def test_wilsons_interval_is_the_textbooks() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263 and 15 of 148.
    for hits, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        found = figures.proportion([True] * hits + [False] * (count - hits))
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_the_share_lies_in_its_interval_and_the_interval_in_0_to_1(truths: list[bool]) -> None:
    found = figures.proportion(truths)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_no_cases_have_no_share() -> None:
    with pytest.raises(ValueError, match="cannot give the share of no cases"):
        figures.proportion([])


def test_quantiles_are_values_that_were_seen() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert figures.quantile(values, 0.5) == 3.0
    assert figures.quantile(values, 0.95) == 5.0
    assert figures.quantile([7.0], 0.0) == 7.0


def test_an_extension_is_right_when_one_of_its_meanings_is_predicted() -> None:
    meanings = {"pl": {"perl", "prolog"}, "py": {"python"}}
    assert figures.right(["prolog", "perl", "perl"], ["pl", "pl", "py"], meanings) == [
        True,
        True,
        False,
    ]


def test_the_commonest_extensions_come_first_with_the_hits_of_each_model() -> None:
    rows = figures.by_extension(
        ["a", "b", "b", "c", "c"],
        [[True] * 5, [True, False, False, True, False]],
        most=2,
    )
    assert [(row.extension, row.count, row.hits) for row in rows] == [
        ("b", 2, (2, 0)),
        ("c", 2, (2, 1)),
    ]


def test_telemetry_of_one_file_adds_up_and_a_repeated_batch_counts_once() -> None:
    batches = [
        batch(1, part(SHA_A, 10), part(SHA_B, 1)),
        batch(2, part(SHA_A, 30)),
        batch(2, part(SHA_A, 30)),
    ]
    found = figures.served(batches, model="m", sha256=SHA_A)
    assert found.requests == 40
    assert found.joules_per_inference == pytest.approx(2.0 / 40)
    assert found.cpu_ms_per_inference == pytest.approx(1000 * 1.0 / 40)
    assert found.latency_ms.count == 40
    assert found.energy_method == "by hand"


def test_energy_that_was_not_measured_all_the_time_is_not_given() -> None:
    batches = [batch(1, part(SHA_A, 10)), batch(2, part(SHA_A, 10, joules=None))]
    assert figures.served(batches, model="m", sha256=SHA_A).joules_per_inference is None
    assert figures.served([], model="m", sha256=SHA_A).joules_per_inference is None


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
