"""Bundles: the same bytes each time, readable by tar, and believed only where everything fits."""

import asyncio
import contextlib
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import Signer

from agent.commandline import import_bundle
from agent.config import Settings
from agent.errors import BadInput, Corrupt, Refused, TrimtabError, Unavailable
from agent.protocol import bundling, trust
from agent.store.bundle import Bundle
from agent.store.imports import Imports
from deploy import bundle, cli
from deploy.publish import Offer
from tests.simulators import models
from tests.store.files import a_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, its inputs, keys, and a bundle of them."""
    folder = tmp_path_factory.mktemp("bundle")
    private, public = trust.generate()
    (folder / "keys").mkdir()
    (folder / "keys" / "fleet.pub").write_bytes(public)
    (folder / "fleet.key").write_bytes(private)
    model = models.cnn(folder / "net.onnx")
    np.savez(folder / "inputs.npz", **models.sample_inputs(model, 40))
    write(folder, folder / "net-1.trimtab")
    return folder


def write(folder: Path, out: Path) -> None:
    bundle.write(
        Offer(model=folder / "net.onnx", name="net", version=1,
              calibration=folder / "inputs.npz", chunk_bytes=4096),
        out, by=trust.signer((folder / "fleet.key").read_bytes()), created_at_s=1e9,
        on_progress=None,
    )  # fmt: skip


def bring(path: Path, state: Path, keys: Path) -> Imports:
    """What `trimtab import` does before the agent comes in."""
    imports = Imports(state / "imports")
    settings = Settings(state_dir=state, keys_dir=keys, disk_reserve_mib=0)
    with Bundle(path) as opened:
        asyncio.run(import_bundle.bring(opened, settings=settings, imports=imports))
    return imports


def test_the_same_files_make_the_same_bundle_and_tar_can_list_it(
    made: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.trimtab"
    write(made, again)
    assert again.read_bytes() == (made / "net-1.trimtab").read_bytes()
    with tarfile.open(again) as tar:
        names = tar.getnames()
    assert names[-1] == "manifest.json"
    assert all(bundling.blob_name(name) for name in names[:-1])
    assert len(set(names)) == len(names)


def test_what_was_bundled_is_what_arrives(made: Path, tmp_path: Path) -> None:
    imports = bring(made / "net-1.trimtab", tmp_path, made / "keys")
    assert imports.catalog.complete("net", 1)
    assert imports.catalog.path("net", 1, "model").read_bytes() == (made / "net.onnx").read_bytes()
    assert imports.orders() == []  # it was brought, and nobody has asked for anything yet


def test_a_bundle_of_strangers_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "other.pub").write_bytes(trust.generate()[1])
    with pytest.raises(Refused, match="not by a trusted key"):
        bring(made / "net-1.trimtab", tmp_path, tmp_path / "keys")
    assert not (tmp_path / "imports").exists()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_bundle_brings_nothing_that_is_not_whole(
    made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = (made / "net-1.trimtab").read_bytes()
    folder = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(whole)
    if data.draw(st.booleans(), label="cut short"):
        del damaged[data.draw(st.integers(0, len(whole) - 1025), label="length") :]
    else:
        at = data.draw(st.integers(0, len(whole) - 1025), label="at")
        damaged[at] ^= data.draw(st.integers(1, 255), label="by")
    (folder / "b").write_bytes(damaged)
    model = folder / "imports" / "net" / "1" / "model.onnx"
    with contextlib.suppress(TrimtabError):
        bring(folder / "b", folder, made / "keys")
        assert model.exists()  # only the padding between two entries was damaged
    assert not model.exists() or model.read_bytes() == (made / "net.onnx").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends in the middle"),
        (a_file(5000), "no bundle, or damaged"),
        (bytes(1024), "no manifest"),
        (bundling.header("../../etc/passwd", 5), "does not belong there"),
        (bundling.header("blob/" + "a" * 64, 2**30), "has 1073741824 bytes"),
        (bundling.header(bundling.MANIFEST, 100), "ends in the middle"),
    ],
)
def test_what_is_no_bundle_is_said_so(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.trimtab"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=says):
        Bundle(path)
    with pytest.raises(BadInput, match="cannot open"):
        Bundle(tmp_path / "absent")


def test_links_and_devices_in_a_tar_are_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(tmp_path / "link", "manifest.json")
    with pytest.raises(Corrupt, match="no bundle"):
        Bundle(tmp_path / "x.tar")


def test_the_command_writes_the_same_bundle_twice(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name in ("a", "b"):
        words = ["bundle", str(made / "net.onnx"), "--name", "net", "--version", "2", "--out",
                 str(tmp_path / name), "--key", str(made / "fleet.key")]  # fmt: skip
        assert cli.main(words) == 0
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    assert "net@2" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_full_disk_leaves_no_half_a_bundle(
    made: Path, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        write(made, tmp_path / "x.trimtab")
    assert not list(tmp_path.glob("x*"))
