"""Zeros and packing come up only where a size is asked for that integers cannot reach."""

from pathlib import Path

import pytest

from compression.choosing import sparing
from compression.choosing.preview import Preview
from compression.findings import Agreement
from compression.job import Budget, PassSpec, Recipe
from compression.passes import catalogue

STORED = Recipe(label="int8 weights", passes=(PassSpec(name="stored"),))
STATIC = Recipe(
    label="int8 per-channel",
    passes=(PassSpec(name="equalization"), PassSpec(name="quantization"), PassSpec(name="stored")),
)


def look(
    recipe: Recipe,
    size_bytes: int,
    value: float | None = 0.99,
    *,
    db: float = 30.0,
    cpu: float = 0.5,
) -> Preview:
    agreement = None if value is None else Agreement(
        value=value, low=value - 0.01, high=min(1.0, value + 0.01), kind="logits", output="y",
        samples=60, split="choosing",
    )  # fmt: skip
    return Preview(recipe=recipe, key=recipe.label, path=Path("x"), size_bytes=size_bytes,
                   agreement=agreement, sqnr_db=db, cpu_ratio=cpu)  # fmt: skip


LOOKS = [look(STORED, 260_000), look(STATIC, 250_000)]
PACKED = sparing.sparse(STATIC, 0.0)


@pytest.mark.parametrize(
    ("budget", "labels"),
    [
        (Budget(), []),
        (Budget(latency_ratio=0.5, memory_ratio=0.5), []),
        (Budget(size_ratio=0.25), []),
        (Budget(size_mib=1.0), []),
        (Budget(size_ratio=0.24), ["50% zeros, packed", "60% zeros, packed"]),
        (Budget(size_ratio=0.15), ["50% zeros, packed", "60% zeros, packed"]),
        (Budget(size_mib=0.08), ["80% zeros, packed", "90% zeros, packed"]),
        (Budget(size_ratio=0.9, size_mib=0.08), ["80% zeros, packed", "90% zeros, packed"]),
        (Budget(size_ratio=0.01), ["90% zeros, packed"]),  # how near it comes
    ],
)
def test_they_follow_the_size_that_is_asked_for(budget: Budget, labels: list[str]) -> None:
    found = sparing.recipes(LOOKS, budget, original_bytes=1_000_000)
    assert [one.label for one in found] == [f"int8 per-channel, {label}" for label in labels]


@pytest.mark.parametrize(
    ("budget", "labels"),
    [
        (Budget(), []),
        (Budget(size_ratio=0.25), []),
        (Budget(size_ratio=0.24), ["int8 per-channel, packed"]),
        (Budget(size_ratio=0.01), ["int8 per-channel, packed"]),
    ],
)
def test_packing_comes_first_since_it_costs_no_likeness(budget: Budget, labels: list[str]) -> None:
    found = sparing.packing(LOOKS, budget, original_bytes=1_000_000)
    assert [one.label for one in found] == labels


def test_what_packing_left_says_whether_zeros_are_needed_and_how_many() -> None:
    enough = [*LOOKS, look(PACKED, 150_000)]
    assert not sparing.recipes(enough, Budget(size_ratio=0.15), original_bytes=1_000_000)
    labels = {
        packed: sparing.recipes(
            [*LOOKS, look(PACKED, packed)], Budget(size_ratio=0.12), original_bytes=1_000_000
        )[0].label
        for packed in (150_000, 225_000)
    }
    assert labels[150_000].startswith("int8 per-channel, 50% zeros")
    assert labels[225_000].startswith("int8 per-channel, 70% zeros")


def test_of_files_as_small_the_nearest_of_the_fastest_is_packed_and_the_nearest_of_all() -> None:
    rounded = PassSpec(name="reconstruction")
    ways = {"plain": (), "near": (rounded,), "slow": (rounded, rounded)}
    alike = [Recipe(label=name, passes=(*STATIC.passes, *more)) for name, more in ways.items()]
    looks = [
        look(alike[0], 250_000, db=35.0, cpu=0.60),
        look(alike[1], 250_100, db=38.0, cpu=0.61),
        look(alike[2], 252_000, db=50.0, cpu=1.0),
        look(STATIC, 300_000, db=60.0, cpu=0.5),  # larger
    ]
    found = sparing.packing(looks, Budget(size_ratio=0.2), original_bytes=1_000_000)
    assert [one.label for one in found] == ["near, packed", "slow, packed", "plain, packed"]


def test_they_begin_with_the_smallest_that_is_alike_enough() -> None:
    # What failed has no size, and what is small enough but answers otherwise is of no use.
    looks = [look(STORED, 260_000), look(STATIC, 100_000, value=0.9), look(STATIC, 0, value=None)]
    budget = Budget(size_ratio=0.15)
    (first, _) = sparing.recipes(looks, budget, original_bytes=1_000_000)
    assert first.label.startswith("int8 weights, ")
    assert not sparing.recipes(looks[1:2], budget, original_bytes=1_000_000)


def test_zeros_come_before_what_rounds_and_packing_last() -> None:
    names = [spec.name for spec in sparing.sparse(STATIC, 0.7).passes]
    assert names == [
        "equalization", "unstructured_pruning", "quantization", "stored", "packed",
    ]  # fmt: skip
    assert set(names) <= set(catalogue.PASSES)
    assert [spec.name for spec in sparing.sparse(STORED, 0.0).passes] == ["stored", "packed"]


def test_an_estimate_falls_with_the_share_of_zeros() -> None:
    sizes = [sparing.packed_bytes(1000, share) for share in sparing.STEPS]
    assert sizes == sorted(sizes, reverse=True)
    assert sparing.packed_bytes(1000, 0.0) == pytest.approx(837.5)
    assert sparing.packed_bytes(1000, 0.0, value_bits=4.8) == pytest.approx(600)
    assert 110 < sizes[-1] < 150  # measured: .13 to .15 of the int8 weights
