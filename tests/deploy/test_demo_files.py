"""Which files the demo takes: the same ones each time, none in both sets."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.errors import Unavailable
from deploy.demo import assets, features, files, inputs

KNOWN = {"py", "html", "gz"}


def plant(root: Path, count: int = 40) -> Path:
    for number in range(count):
        for extension in (*KNOWN, "unknown"):
            folder = root / f"{number % 5}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.{extension}").write_bytes(b"%d %s " % (number, os.urandom(40)))
    return root


def names(picked: list[files.Picked]) -> list[str]:
    return [str(item.path) for item in picked]


def test_picks_the_same_files_for_the_same_seed_and_others_for_another(tmp_path: Path) -> None:
    root = plant(tmp_path)
    once, again, other = (
        files.pick([root], extensions=KNOWN, per_extension=10, seed=seed) for seed in (1, 1, 2)
    )
    assert names(once) == names(again)
    assert set(names(once)) != set(names(other))
    assert len(once) == 30


def test_takes_no_more_of_an_extension_than_asked_and_none_that_is_unknown(tmp_path: Path) -> None:
    picked = files.pick([plant(tmp_path)], extensions=KNOWN, per_extension=7, seed=1)
    counted = dict.fromkeys(KNOWN, 0)
    for item in picked:
        counted[item.extension] += 1
        assert item.path.suffix == f".{item.extension}"
    assert counted == dict.fromkeys(KNOWN, 7)


def test_a_common_extension_does_not_come_first_as_a_block(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.py").write_bytes(b"some content")
    for number in range(20):
        (tmp_path / f"{number}.gz").write_bytes(b"some content")
    picked = files.pick([tmp_path], extensions=KNOWN, per_extension=20, seed=1)
    assert {item.extension for item in picked[:20]} == {"py", "gz"}


def test_leaves_out_links_empty_files_folders_and_what_is_not_regular(tmp_path: Path) -> None:
    (tmp_path / "real.py").write_bytes(b"real content")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / "link.py").symlink_to(tmp_path / "real.py")
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")  # reading it would never end
    (tmp_path / "UPPER.PY").write_bytes(b"also real")
    picked = files.pick([tmp_path], extensions=KNOWN, per_extension=10, seed=1)
    assert {item.path.name for item in picked} == {"real.py", "UPPER.PY"}


def test_looks_at_no_more_entries_than_it_may(tmp_path: Path) -> None:
    root = plant(tmp_path)
    picked = files.pick([root], extensions=KNOWN, per_extension=99, seed=1, max_seen=40)
    assert 0 < len(picked) <= 40


def test_equal_contents_count_once_so_that_no_row_is_in_both_sets(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.py").write_bytes(
            b"the same content" if number % 2 else b"%060d" % number
        )
    picked = files.pick([tmp_path], extensions=KNOWN, per_extension=99, seed=1)
    rows = inputs.distinct(picked)
    assert len(picked) == 60
    assert len(rows) == 31
    sets = inputs.split(rows, calibration=10, evaluation=20)
    calibration = {row.tobytes() for row in sets.calibration}
    assert not calibration & {row.tobytes() for row in sets.evaluation}
    assert len(sets.extensions) == len(sets.evaluation) == 20


def test_says_plainly_when_a_machine_has_too_few_files() -> None:
    row = np.zeros(features.TOKENS, np.int32)
    with pytest.raises(Unavailable, match=r"cannot run the demo.* 20 .* are needed"):
        inputs.split([(row, "py")] * 20, calibration=200, evaluation=300)


def test_this_machine_has_enough_files_of_several_kinds() -> None:
    sets = inputs.from_this_machine(assets.find())
    assert len(sets.calibration) >= 100
    assert len(sets.evaluation) >= 300
    assert len(set(sets.extensions)) >= 8
    calibration = {row.tobytes() for row in sets.calibration}
    assert not calibration & {row.tobytes() for row in sets.evaluation}


def test_finds_the_model_without_importing_magika_or_onnxruntime() -> None:
    code = (
        "import sys; from deploy.demo import assets; found = assets.find(); "
        "assert found.model.stat().st_size > 2**20; "
        "print({'magika', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_extension_may_stand_for_several_labels_and_only_for_those_of_the_model() -> None:
    knowledge = {
        "perl": {"extensions": ["pl", "PM"]},
        "prolog": {"extensions": ["pl"]},
        "rare": {"extensions": ["pl", "rare"]},
        "txt": {"extensions": ["txt"]},
    }
    found = assets.extensions(knowledge, ("perl", "prolog", "txt", "elf"))
    assert found["pl"] == {"perl", "prolog"}
    assert found["pm"] == {"perl"}
    assert found["so"] == {"elf"}
    assert "rare" not in found
    assert "txt" not in found  # says nothing about the content
    assert "crt" not in found  # the model does not know pem
