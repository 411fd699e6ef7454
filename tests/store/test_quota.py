"""Room for a pull: what gives way, what never does, and what is said where nothing helps."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refused, Unavailable
from agent.store import quota
from agent.store.catalog import Catalog, Entry
from agent.store.quota import Bounds, Room, make_room, short_by, victims
from tests.store.test_catalog import a_manifest

NAMES = st.sampled_from(["a", "b", "c"])
ENTRIES = st.lists(
    st.builds(
        Entry, NAMES, st.integers(1, 9), complete=st.booleans(), size_bytes=st.integers(0, 100),
        changed_at_s=st.integers(0, 5).map(float),
    ),
    unique_by=lambda entry: (entry.name, entry.version),
)  # fmt: skip


@given(entries=ENTRIES, pinned=st.sets(st.tuples(NAMES, st.integers(1, 9))),
       short_bytes=st.integers(1, 400))  # fmt: skip
def test_the_oldest_give_way_no_more_than_needed_and_never_what_is_pinned(
    entries: list[Entry], pinned: set[tuple[str, int]], short_bytes: int
) -> None:
    chosen = victims(entries, pinned=pinned, short_bytes=short_bytes)
    loose = [entry for entry in entries if (entry.name, entry.version) not in pinned]
    assert all(entry in loose for entry in chosen)
    freed = sum(entry.size_bytes for entry in chosen)
    if sum(entry.size_bytes for entry in loose) < short_bytes:
        assert chosen == []  # nothing is thrown away in vain
    else:
        assert freed >= short_bytes > freed - chosen[-1].size_bytes
        kept = [entry for entry in loose if entry not in chosen]
        assert all(a.changed_at_s <= b.changed_at_s for a in chosen for b in kept)


@pytest.mark.parametrize(
    ("need", "room", "bounds", "short"),
    [
        (100, Room(200, 1000, 0), Bounds(), 0),
        (100, Room(200, 1000, 0), Bounds(reserve_bytes=150), 50),
        (100, Room(900, 1000, 450), Bounds(quota_bytes=500), 50),
        (100, Room(50, 1000, 450), Bounds(reserve_bytes=10, quota_bytes=1000), 60),
    ],
)
def test_the_tighter_of_disk_and_quota_decides(
    need: int, room: Room, bounds: Bounds, short: int
) -> None:
    assert short_by(need, room, bounds) == short


def a_catalog(folder: Path, *versions: int) -> Catalog:
    """Whole versions of 5000 bytes each with their manifests, the first the oldest."""
    catalog = Catalog(folder)
    for age, version in enumerate(versions):
        catalog.begin(a_manifest(version=version).to_json())
        catalog.path("mnist", version, "model").write_bytes(b"m" * 2000)
        catalog.path("mnist", version, "calibration").write_bytes(b"c" * 3000)
        path = catalog.folder("mnist", version) / "manifest.json"
        os.utime(path, (1000 + age, 1000 + age))
    return catalog


def test_a_version_that_nothing_needs_gives_way_and_the_fleet_is_told(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path, 1, 2, 3)
    used = sum(entry.size_bytes for entry in catalog.entries())
    catalog.begin(a_manifest(version=4).to_json())
    told: list[Entry] = []
    make_room(
        catalog, ("mnist", 4), bounds=Bounds(quota_bytes=used + 2000), pinned={("mnist", 1)},
        on_evicted=told.append,
    )  # fmt: skip
    assert [entry.version for entry in told] == [2]
    assert [entry.version for entry in catalog.entries()] == [1, 3, 4]


def test_where_everything_is_pinned_the_figures_are_said_and_nothing_goes(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path, 1, 2)
    catalog.begin(a_manifest(version=3).to_json())
    with pytest.raises(
        Unavailable,
        match=r"cannot fetch mnist@3: it needs 0\.0 MiB beside a reserve of 0\.0 MiB; .* MiB are "
        r"free on .*, and models that are in use take 0\.0 MiB of a quota of 0\.0 MiB",
    ):
        make_room(
            catalog, ("mnist", 3), bounds=Bounds(quota_bytes=12_000),
            pinned={("mnist", 1), ("mnist", 2)},
        )  # fmt: skip
    assert [entry.version for entry in catalog.entries()] == [1, 2, 3]


def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.begin(a_manifest().to_json())
    with pytest.raises(Refused, match=r"models may take at most 0\.0 MiB here"):
        make_room(catalog, ("mnist", 1), bounds=Bounds(quota_bytes=4000), pinned=())
    with pytest.raises(Refused, match="models may take at most"):
        make_room(catalog, ("mnist", 1), bounds=Bounds(reserve_bytes=2**60), pinned=())


def test_what_a_cut_pull_has_allocated_is_not_counted_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(tmp_path)
    catalog.begin(a_manifest().to_json())
    monkeypatch.setattr(quota.disk, "free_bytes", lambda _: 3500)
    with pytest.raises(Unavailable):
        make_room(catalog, ("mnist", 1), bounds=Bounds(), pinned=())
    for file in ("model", "calibration"):
        path = catalog.path("mnist", 1, file)
        path.with_name(path.name + ".partial").write_bytes(bytes(4096))
    make_room(catalog, ("mnist", 1), bounds=Bounds(), pinned=())


def test_a_version_that_is_here_needs_no_room(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path, 1)
    make_room(catalog, ("mnist", 1), bounds=Bounds(quota_bytes=1), pinned=())
