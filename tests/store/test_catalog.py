"""The catalogue: what is complete, what is missing, and no way out of its folder."""

from pathlib import Path

import pytest

from agent.errors import BadInput, Corrupt, Unavailable
from agent.protocol.manifest import Files, Manifest
from agent.store.catalog import Catalog
from compression.job import InputSpec, OutputSpec
from tests.store.files import publish


def a_manifest(name: str = "mnist", version: int = 1) -> Manifest:
    return Manifest(
        name=name,
        version=version,
        display_version=f"1.{version}",
        files=Files(model=publish(b"m" * 2000).ref, calibration=publish(b"c" * 3000).ref),
        inputs=(InputSpec(name="x", dtype="float32", shape=(-1, 4)),),
        outputs=(OutputSpec(name="y"),),
        created_at_s=0.0,
    )


def test_a_version_is_complete_when_every_file_of_its_manifest_is_here(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    manifest = catalog.begin(a_manifest().to_json())
    assert manifest == a_manifest()
    assert set(catalog.missing("mnist", 1)) == {
        catalog.path("mnist", 1, "model"),
        catalog.path("mnist", 1, "calibration"),
    }
    catalog.path("mnist", 1, "model").write_bytes(b"m" * 2000)
    assert not catalog.complete("mnist", 1)
    catalog.path("mnist", 1, "calibration").write_bytes(b"c" * 2999)
    assert not catalog.complete("mnist", 1)
    catalog.path("mnist", 1, "calibration").write_bytes(b"c" * 3000)
    assert catalog.complete("mnist", 1)


def test_lists_versions_in_order_and_passes_over_what_does_not_belong(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for version in (10, 9):
        catalog.begin(a_manifest(version=version).to_json())
    (tmp_path / "mnist" / "tmp").mkdir()
    (tmp_path / "mnist" / "0").mkdir()
    (tmp_path / ".hidden" / "1").mkdir(parents=True)
    (tmp_path / "a file").write_text("")
    found = catalog.entries()
    assert [(e.name, e.version, e.complete) for e in found] == [
        ("mnist", 9, False),
        ("mnist", 10, False),
    ]
    assert all(e.size_bytes > 0 for e in found)


def test_remove_frees_one_version_or_all(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for version in (1, 2, 3):
        catalog.begin(a_manifest(version=version).to_json())
        catalog.ladder("mnist", version).mkdir()
        (catalog.ladder("mnist", version) / "rung.onnx").write_bytes(bytes(5000))
    assert catalog.remove("mnist", 2) > 5000
    assert [e.version for e in catalog.entries()] == [1, 3]
    assert catalog.remove("mnist") > 10_000
    assert list(tmp_path.iterdir()) == []
    assert catalog.remove("mnist") == 0


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "../escape", "/etc", "a\0b", "-x" * 40, "ä", "x\n"]
)
def test_a_name_that_is_no_name_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "models")
    for call in (catalog.folder, catalog.ladder, catalog.remove, catalog.size_bytes):
        with pytest.raises(BadInput):
            call(name, 1)
    with pytest.raises(BadInput):
        catalog.folder("fine", 0)


def test_a_manifest_that_cannot_be_read_any_more_is_corrupt(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    with pytest.raises(Unavailable, match="cannot find mnist@1"):
        catalog.manifest("mnist", 1)
    catalog.begin(a_manifest().to_json())
    (catalog.folder("mnist", 1) / "manifest.json").write_bytes(b'{"name": "mni')
    with pytest.raises(Corrupt, match="manifest"):
        catalog.manifest("mnist", 1)
    assert not catalog.complete("mnist", 1)
    assert [e.complete for e in catalog.entries()] == [False]


def test_a_file_that_changed_with_its_manifest_is_missing_again(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    catalog.begin(a_manifest().to_json())
    for file, data in (("model", b"m" * 2000), ("calibration", b"c" * 3000)):
        catalog.path("mnist", 1, file).write_bytes(data)
    files = Files(model=publish(b"n" * 2000).ref, calibration=publish(b"c" * 3000).ref)
    catalog.begin(a_manifest().model_copy(update={"files": files}).to_json())
    assert set(catalog.missing("mnist", 1)) == {catalog.path("mnist", 1, "model")}
