"""The page of a ladder: whole, readable by a parser, and deaf to hostile names."""

import html
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.findings import (
    Agreement,
    Division,
    Labelled,
    Ladder,
    Measurement,
    ModelRef,
    Rejected,
    Rung,
    Sensitivity,
)
from compression.job import Budget, DeviceClass, PassSpec, Recipe, Runtime
from compression.page import bars, document, plot, scale
from compression.page.markup import Markup, element

MADE = document.Made(by="trimtab 0.1", at_s=0.0)
DEVICE = DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="1.31.1")
EVIL = """"><script src="//x/y.js">alert(1)</script><img src=x onerror='go()'>&amp;]]>"""


def measured(*, ratio: float = 0.5, value: float = 0.99, output: str = "y", **more) -> Measurement:
    agreement = Agreement(
        value=value, low=max(0.0, value - 0.05), high=min(1.0, value + 0.01), kind="logits",
        output=output, samples=50, split="held-out",
    )  # fmt: skip
    figures = {
        "latency_p50_ms": 5.0, "latency_p95_ms": 6.0, "original_latency_p50_ms": 10.0,
        "original_latency_p95_ms": 12.0, "latency_ratio": ratio, "ratio_low": ratio - 0.02,
        "ratio_high": ratio + 0.02, "ratio_basis": "cpu", "wall_ratio": ratio, "cpu_ratio": ratio,
        "noise": 0.1, "cpu_ms_per_inference": 5.0, "original_cpu_ms_per_inference": 10.0,
        "peak_memory_mib": 20.0, "original_peak_memory_mib": 30.0, "size_mib": 1.0,
        "original_size_mib": 4.0, "agreement": agreement, "sqnr_db": {output: 30.0}, "threads": 1,
        "samples": 50, "rounds": 24, "method": {"memory": "VmHWM of a fresh fork"},
    }  # fmt: skip
    return Measurement(**(figures | more))


def rung(label: str, *, meets: bool = True, verified: bool = True, **figures) -> Rung:
    found = measured(**figures)
    passes = () if label == "original" else (PassSpec(name="quantization"),)
    return Rung(
        file="rung-0.onnx", sha256="0" * 64, recipe=Recipe(label=label, passes=passes),
        runtime=Runtime(), measurement=found, meets_budget=meets, verified=verified,
        misses=() if meets else ("latency ratio 1.20 over budget 0.70",),
        chosen_by=None if label == "original" else found.agreement,
    )  # fmt: skip


def ladder_of(*rungs: Rung, name: str = "net", **more) -> Ladder:
    fields = {"budget": Budget(min_agreement=0.98, latency_ratio=0.7, size_mib=2.0)} | more
    return Ladder(
        model=ModelRef(name=name, sha256="a" * 64), device_class=DEVICE, rungs=rungs, **fields
    )


@pytest.fixture
def usual() -> Ladder:
    division = Division(calibrating=14, choosing=12, reporting=14, split="held-out", sources=40)
    lost = Rejected(
        recipe=Recipe(label="int8 per-tensor"), reason="agreement 0.4 below 0.98",
        measurement=measured(value=0.4, ratio=0.4),
    )  # fmt: skip
    left = Rejected(recipe=Recipe(label="int8 short"), reason="not tried", tried=False)
    worst = Sensitivity(
        node="stem", operator="Conv", sqnr_db=21.5, weight_share=0.01, left_float_in=("int8 mixed",)
    )
    fine = Sensitivity(node="head", operator="Gemm", sqnr_db=55.0, weight_share=0.6)
    return ladder_of(
        rung("int8 mixed"), rung("int8", ratio=0.45, value=0.98),
        rung("original", meets=False, ratio=1.0, value=1.0),
        rejected=(lost, left), division=division, sensitivities=(worst, fine),
    )  # fmt: skip


class Parsed(HTMLParser):
    """Elements and attributes as a browser would see them; complains of what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):  # type: ignore[no-untyped-def]  # HTMLParser's own
        self.handle_startendtag(tag, attrs)
        self._open.append(tag)

    def handle_startendtag(self, tag, attrs):  # type: ignore[no-untyped-def]  # HTMLParser's own
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def words(page: str) -> str:
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", page).split()))


def test_the_page_shows_the_ladders_data(usual: Ladder) -> None:
    page = document.render(usual, made=MADE)
    text = words(page)
    for shown in (
        ": 0.25 of the original's size, 0.50 of its time",
        "0.990 [0.940, 1.000]", "chosen by 0.990 on 50 held-out samples",
        "latency ratio 1.20 over budget 0.70", "agreement 0.4 below 0.98",
        "int8 short: not tried", "stem", "21.5", "all 2 nodes as a table",
        "14 calibrate, 12 choose, 14 report (held-out)", "VmHWM of a fresh fork",
        "onnxruntime 1.31.1", "Made by trimtab 0.1, 1970-01-01 00:00 UTC",
        "min agreement 0.98",
    ):  # fmt: skip
        assert shown in text, shown


def test_the_page_needs_nothing_from_anywhere(usual: Ladder) -> None:
    page = document.render(usual, made=MADE)
    parsed = Parsed(page)
    fetching = {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"}
    assert not fetching & set(parsed.tags)
    assert not [name for name, _ in parsed.attributes if name in {"src", "href", "xlink:href"}]
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 100_000


def test_what_is_drawn_is_also_written_and_named(usual: Ladder) -> None:
    page = document.render(usual, made=MADE)
    parsed = Parsed(page)
    assert parsed.tags.count("svg") == 3
    assert [value for name, value in parsed.attributes if name == "role"].count("img") == 3
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ET.fromstring(drawing)
        assert root[0].tag == "title"
        assert root[0].text
    scopes = [value for name, value in parsed.attributes if name == "scope"]
    assert set(scopes) == {"col", "row"}
    assert ("lang", "en") in parsed.attributes


def test_a_slower_rung_and_an_unverified_one_are_told(usual: Ladder) -> None:
    slow = ladder_of(rung("int8", ratio=1.3, verified=False), rung("original", ratio=1.0))
    text = words(document.render(slow, made=MADE))
    assert "slower than the original" in text
    assert "1.30 of its time (slower)" in text
    assert "A device lets such a variant serve only where its deployment says" in text
    usual_text = words(document.render(usual, made=MADE))
    assert "slower than the original" not in usual_text
    assert "unverified" not in usual_text.lower()


def test_labels_are_shown_beside_the_agreement() -> None:
    figures = Labelled(
        metric="accuracy", output="y", original=0.9, candidate=0.89, low=-0.02, high=0.0, samples=9
    )
    page = document.render(ladder_of(rung("int8", labelled=(figures,))), made=MADE)
    assert "accuracy by labels 0.8900, original 0.9000" in words(page)


@pytest.mark.parametrize(
    ("rungs", "said"),
    [
        ((), "Nothing meets the budget."),
        ((rung("original", meets=False),), "Nothing meets the budget. Nearest is"),
        ((rung("original"),), "Only the original meets the budget"),
    ],
)
def test_ladders_without_a_better_variant_have_a_page(rungs: tuple[Rung, ...], said: str) -> None:
    page = document.render(ladder_of(*rungs), made=MADE)
    assert said in words(page)
    Parsed(page)


def named(name: str) -> str:
    """A page in which everything that can have a name has this one."""
    node = Sensitivity(
        node=name, operator=name, sqnr_db=3.0, weight_share=1.0, left_float_in=(name,)
    )
    return document.render(
        ladder_of(
            rung(name, output=name, method={name: name}),
            name=name,
            rejected=(Rejected(recipe=Recipe(label=name), reason=name),),
            sensitivities=(node,),
        ),
        made=document.Made(by=name, at_s=0.0),
    )


@pytest.mark.parametrize("evil", [EVIL, "\x00\x1b[2J\u202e", "</style></title><b>", "\ud800"])
def test_hostile_names_stay_text(evil: str) -> None:
    page = named(evil)
    page.encode()
    parsed, harmless = Parsed(page), Parsed(named("harmless"))
    assert parsed.tags == harmless.tags
    assert [name for name, _ in parsed.attributes] == [name for name, _ in harmless.attributes]
    assert not {"\x00", "\x1b", "\u202e"} & set(page)


@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was_or_is_replaced(inside: str, attribute: str) -> None:
    text = element("p", inside, title=attribute)
    root = ET.fromstring(text)
    replaced = "\N{REPLACEMENT CHARACTER}"
    for was, found in ((inside, root.text or ""), (attribute, root.attrib["title"])):
        assert len(found) == len(was)
        assert all(a == b or b in {replaced, " "} for a, b in zip(was, found, strict=True))


def test_only_markup_is_not_escaped() -> None:
    assert element("p", "<b>", Markup("<i/>")) == "<p>&lt;b&gt;<i/></p>"


@given(
    st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 9),
)  # fmt: skip
def test_ticks_are_few_round_and_on_the_axis(low: float, width: float, most: int) -> None:
    axis = scale.Scale(low, low + width, 0.0, 100.0)
    ticks = axis.ticks(most)
    assert len(ticks) <= most + 1
    assert ticks == sorted(set(ticks))
    room = 1e-6 * max(width, abs(low))
    assert all(low - room <= tick <= low + width + room for tick in ticks)


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=15))
def test_every_point_is_drawn_inside_of_the_picture(at: list[tuple[float, float]]) -> None:
    points = [
        plot.Point(x, y, "rung", f"p{n}", str(n), (x - 0.5, x + 0.5), (y - 0.2, y + 0.2))
        for n, (x, y) in enumerate(at)
    ]
    drawn = plot.draw("t", points, x=plot.Axis("x", 0.4, 1.2), y=plot.Axis("y", 0.9, 1.0, 0.95))
    root = ET.fromstring(drawn)
    circles = root.findall(".//circle")
    assert len(circles) == len(at)
    for circle in circles:
        assert 0 <= float(circle.attrib["cx"]) <= plot.WIDTH
        assert 0 <= float(circle.attrib["cy"]) <= plot.HEIGHT
    numbers = [text for text in root.findall("text") if text.attrib.get("class") == "number"]
    assert [text.text for text in numbers] == [str(n) for n in range(len(at))]


def test_only_the_worst_nodes_are_drawn_and_long_names_are_cut_in_the_middle() -> None:
    nodes = [
        Sensitivity(node=f"/backbone/stage.{n}/conv/Conv_output_{n}", operator="Conv",
                    sqnr_db=float(n), weight_share=0.01)
        for n in range(60)
    ]  # fmt: skip
    root = ET.fromstring(bars.draw(nodes))
    assert len(root.findall(".//rect")) == bars.MOST
    assert bars.short(nodes[41].node).endswith("_output_41")
    assert bars.short(nodes[41].node).startswith("/backbone/")
