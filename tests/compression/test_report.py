"""What the table says of a rung beside its figures: slower, unverified, and by how much known."""

import pytest

from compression import report
from compression.findings import Ladder, Nearness, Paired, Recovered, Rejected, Rung
from compression.job import PassSpec, Recipe
from compression.page import document
from compression.stream import Tried
from tests.compression.test_page import MADE, ladder_of, measured, rung


@pytest.mark.parametrize(
    ("figures", "slower"),
    [
        ({"ratio": 0.5}, False),
        ({"ratio": 1.0, "ratio_low": 0.97, "ratio_high": 1.03}, False),
        ({"ratio": 1.03, "ratio_low": 1.01, "ratio_high": 1.05}, True),  # little, but surely
        ({"ratio": 1.04, "ratio_low": None, "ratio_high": None}, False),
        ({"ratio": 1.2, "ratio_low": 0.9, "ratio_high": 1.5}, True),  # unsure, but much
        ({"ratio": 1.2, "ratio_low": 0.9, "ratio_high": 1.5, "ratio_basis": "wall",
          "noise": 0.3}, False),
    ],
)  # fmt: skip
def test_slower_is_what_chance_does_not_explain(
    figures: dict[str, float | str | None], slower: bool
) -> None:
    assert report.slower(measured(**figures)) is slower


def test_no_rung_is_slower_or_unverified_without_the_table_saying_so() -> None:
    slow, free = rung("slow", ratio=1.4), rung("free", verified=False)
    lines = report.table(ladder_of(slow, free, rung("fine"))).splitlines()
    row = {name: next(line for line in lines if f" {name} " in line) for name in
           ("slow", "free", "fine")}  # fmt: skip
    assert "1.40 cpu, slower" in row["slow"]
    assert "meets, unverified" in row["free"]
    assert not {"slower", "unverified"} & set(row["fine"].replace(",", " ").split())
    assert report.UNVERIFIED in lines
    assert "; slower than the original" in report.line(Tried(rung=slow))
    assert "; unverified" in report.line(Tried(rung=free))


def test_a_ladder_without_rungs_is_a_table_without_rows() -> None:
    assert report.table(ladder_of()).startswith("  variant")


def test_what_was_forecast_stands_beside_what_was_measured() -> None:
    cut = rung("pruned", ratio=0.5).model_copy(update={"predicted_ratio": 0.45})
    found = ladder_of(cut, rung("int8", ratio=0.7))
    assert (
        "   pruned: 0.45 of the original's CPU time, measured 0.50 (-10%)"
        in report.table(found).splitlines()
    )
    page = document.render(found, made=MADE)
    assert "What was forecast" in page
    assert '<td class="n">-10%</td>' in page
    without = ladder_of(rung("int8"))
    assert "forecast" not in report.table(without)
    assert "What was forecast" not in document.render(without, made=MADE)


def test_what_was_trained_stands_beside_itself_untrained() -> None:
    good = Recovered(
        recipe=Recipe(label="pruned, recovered"), of="pruned", accepted=True,
        reason="better: agreement 0.9060 -> 0.9340", samples=300, minutes=4.25,
        agreement=Paired(before=0.906, after=0.934, chance=0.001),
        loss=Paired(before=0.2105, after=0.1512, chance=0.0),
    )  # fmt: skip
    bad = Recovered(
        recipe=Recipe(label="<int8>, recovered"), of="<int8>", accepted=False,
        reason="cannot recover: it reads strings",
    )  # fmt: skip
    found = ladder_of(rung("pruned, recovered"), recovered=(good, bad))
    lines = report.table(found).splitlines()
    assert "   pruned, recovered: let in, better: agreement 0.9060 -> 0.9340, 4.2 min" in lines
    assert "   <int8>, recovered: not let in, cannot recover: it reads strings" in lines
    page = document.render(found, made=MADE)
    assert "What recovery did" in page
    assert "0.9060 → 0.9340" in page
    assert "0.2105 → 0.1512" in page
    assert "✗ not let in" in page
    assert "<int8>" not in page
    assert "What recovery did" not in document.render(ladder_of(rung("int8")), made=MADE)


def cut(label: str, *, loss: float | None = None, **figures: float) -> Rung:
    passes = (PassSpec(name="structured_pruning"), PassSpec(name="quantization"))
    near = None if loss is None else Nearness(place=1, loss=loss)
    changed = {"recipe": Recipe(label=label, passes=passes), "nearness": near}
    return rung(label, **figures).model_copy(update=changed)


def told(found: Ladder) -> str:
    """What the table says of cutting, if the page says it too."""
    lines = [line for line in report.table(found).splitlines() if "cutting buys" in line]
    page = document.render(found, made=MADE)
    assert len(lines) == page.lower().count("cutting buys") <= 1
    return "".join(lines)


def test_what_cutting_buys_is_told_with_what_it_costs() -> None:
    whole = rung("int8", ratio=0.58, value=1.0, size_mib=0.79)
    near = whole.model_copy(update={"nearness": Nearness(place=0, loss=1e-4)})
    deep = cut("pruned", ratio=0.44, value=0.98, size_mib=0.46, loss=0.015)
    last = cut("pruned more", ratio=0.3, value=0.9)
    original = rung("original", ratio=1.0, size_mib=4.0)
    assert told(ladder_of(deep, near, last, original)) == (
        "what cutting buys: 'pruned' beside 'int8': 0.44 of the time for 0.58, a file of 0.46 MiB "
        "for 0.79, memory of 20.0 MiB for 20.0, agreement 0.980 for 1.000, loss 0.015 for 0.0001"
    )
    # Where nothing else came of it, the original is what a cut is seen beside.
    assert "'pruned' beside 'original': 0.44 of the time for 1.00" in told(
        ladder_of(deep, original)
    )


@pytest.mark.parametrize(
    ("ratio", "size_mib", "little"), [(0.55, 0.75, True), (0.5, 0.79, False), (0.58, 0.6, False)]
)
def test_what_saves_a_tenth_of_neither_time_nor_size_buys_little(
    ratio: float, size_mib: float, little: bool
) -> None:
    whole = rung("int8", ratio=0.58, size_mib=0.79)
    said = told(ladder_of(cut("pruned", ratio=ratio, size_mib=size_mib), whole))
    assert said.startswith("cutting buys little: " if little else "what cutting buys: ")


def test_cuts_that_all_lost_are_told_and_where_none_was_tried_nothing_is() -> None:
    found = cut("pruned")
    lost = Rejected(recipe=found.recipe, reason="agreement 0.650 below 0.980")
    whole = rung("int8")
    said = "cutting buys nothing: of 2 that were tried none is good enough"
    assert told(ladder_of(whole, rejected=(lost, lost))) == said
    left = lost.model_copy(update={"tried": False})
    assert not told(ladder_of(whole, rejected=(left,)))
    assert not told(ladder_of(whole, rejected=(lost, left)))  # nothing speaks against that one


def test_what_is_packed_is_seen_beside_what_is_packed() -> None:
    whole, packed = rung("int8"), rung("int8, packed")
    more = (*packed.recipe.passes, PassSpec(name="packed"))
    packed = packed.model_copy(update={"recipe": Recipe(label="int8, packed", passes=more)})
    deep = cut("pruned, packed")
    deep = deep.model_copy(
        update={"recipe": Recipe(label="pruned, packed", passes=(*deep.recipe.passes, more[-1]))}
    )
    assert "beside 'int8, packed'" in told(ladder_of(deep, whole, packed))
    assert "beside 'int8'" in told(ladder_of(cut("pruned"), packed, whole))


def test_memory_that_is_saved_is_not_little() -> None:
    whole = rung("int8", peak_memory_mib=20.0)
    assert told(ladder_of(cut("pruned", peak_memory_mib=15.0), whole)).startswith("what cutting")
    assert told(ladder_of(cut("pruned", peak_memory_mib=19.0), whole)).startswith("cutting buys l")
