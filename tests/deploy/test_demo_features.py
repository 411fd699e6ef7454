"""The demo's own feature extraction against magika's, which runs in a process of its own."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.demo import features

# What magika gives its model for each file named on stdin; null where it asks no model.
ORACLE = """
import json, sys
from pathlib import Path
from magika import Magika

magika, rows = Magika(), {}
for name in json.load(sys.stdin):
    _, found = magika._get_result_or_features_from_path(Path(name))
    rows[name] = None if found is None else [*found.beg, *found.end]
json.dump(rows, sys.stdout)
"""


def odd_contents() -> dict[str, bytes]:
    rng = random.Random(3)
    contents = {
        "empty": b"",
        "one": b"x",
        "three": b"abc",
        "seven": b"abcdefg",
        "eight": b"abcdefgh",
        "eight-in-space": b"  \n abcdefgh \t\n",
        "seven-in-space": b"  \n abcdefg \t\n",
        "space-only": b" \n\t" * 50,
        "long-space-only": b" " * 10_000,
        "space-then-text": b" " * 4090 + b"text after much space" * 9,
        "text-then-space": b"text before much space" * 9 + b"\n" * 5000,
        "nul": b"\0" * 2000,
        "vertical-space": b"\v\f\r" + b"between" * 300 + b"\x1c\x1d\x85\xa0",
    }
    for size in (1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096, 4097, 5000, 8191, 8192, 8193):
        contents[f"random-{size}"] = rng.randbytes(size)
    for size in (500, 1024, 4096, 4097, 9000):
        contents[f"text-{size}"] = (b"\n  line of text \n" * 1000)[:size]
    return contents


def test_gives_the_model_exactly_what_magika_would(tmp_path: Path) -> None:
    paths = []
    for name, content in odd_contents().items():
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-P", "-c", ORACLE],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(done.stdout)
    assert len(paths) >= 30
    for path in paths:
        ours = features.read(path)
        theirs = expected[str(path)]
        assert (None if ours is None else ours.tolist()) == theirs, path.name
    assert {name for name, row in expected.items() if row is None}  # both kinds were seen
    assert {name for name, row in expected.items() if row is not None}


@given(st.binary(max_size=5000))
def test_tokens_are_always_of_the_models_shape_and_range(content: bytes) -> None:
    row = features.tokens(content[:4096], content[-4096:])
    if row is None:
        assert len(content[:4096].lstrip()) < features.LEAST_BYTES
        return
    assert row.shape == (2048,)
    assert row.dtype == np.int32
    assert row.min() >= 0
    assert row.max() <= features.PADDING


def test_a_file_that_vanished_or_is_a_folder_has_no_tokens(tmp_path: Path) -> None:
    assert features.read(tmp_path) is None
    assert features.read(tmp_path / "gone") is None


@pytest.mark.parametrize("content", [b"", b"abc", b"       \n", b"  abcdefg"])
def test_leaves_to_magikas_rules_what_is_too_short(content: bytes) -> None:
    assert features.tokens(content, content) is None
