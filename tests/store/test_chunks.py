"""The chunk store: only what fits its name gets in, and only whole chunks are seen."""

import os
from pathlib import Path

import pytest

from agent.errors import Corrupt, Unavailable
from agent.protocol import chunking
from agent.store.chunks import Chunks


def named(payload: bytes) -> tuple[str, bytes]:
    return chunking.sha256(payload), payload


def test_a_chunk_is_seen_once_it_is_settled(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path)
    name, payload = named(b"hello")
    chunks.put(name, payload)
    assert not chunks.has(name)
    chunks.settle()
    assert chunks.get(name) == payload
    assert chunks.missing([name, "0" * 64, "0" * 64]) == ["0" * 64]


def test_a_payload_under_a_wrong_name_never_touches_the_disk(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path)
    name, payload = named(b"hello")
    with pytest.raises(Corrupt, match=f"cannot accept chunk {name[:12]}: its 6 bytes hash to"):
        chunks.put(name, payload + b"!")
    chunks.settle()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "a" * 63 + "\n", "a" * 65])
def test_a_name_that_is_no_hash_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="not a sha256"):
        Chunks(tmp_path).has(name)


def test_a_chunk_that_the_disk_damaged_is_removed_and_missing(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path)
    name, payload = named(b"x" * 5000)
    chunks.put(name, payload)
    chunks.settle()
    (path,) = tmp_path.glob(f"??/{name}")
    path.write_bytes(payload[:4096] + bytes(904))
    assert chunks.get(name) is None
    assert chunks.missing([name]) == [name]


def test_what_a_kill_left_half_written_is_gone_after_the_next_start(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path)
    chunks.put(*named(b"never settled"))
    Chunks(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_collect_keeps_what_is_wanted(tmp_path: Path) -> None:
    chunks = Chunks(tmp_path)
    first, second = named(b"one"), named(b"second")
    chunks.put(*first)
    chunks.put(*second)
    chunks.settle()
    assert chunks.size_bytes() == 9
    assert chunks.collect({first[0]}) == 6
    assert chunks.get(first[0]) == b"one"
    assert not chunks.has(second[0])


def test_a_store_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot open the chunk store"):
        Chunks(tmp_path / "file" / "chunks")


def test_what_another_pull_puts_while_chunks_are_settled_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = Chunks(tmp_path)
    first, second = named(b"first"), named(b"second")
    chunks.put(*first)
    sync = os.fdatasync

    def meanwhile(handle: int) -> None:
        sync(handle)
        if not chunks.has(second[0]) and second[0] not in chunks._unsettled:
            chunks.put(*second)
            chunks.put(*first)

    monkeypatch.setattr(os, "fdatasync", meanwhile)
    chunks.settle()
    chunks.settle()
    assert chunks.get(first[0]) == b"first"
    assert chunks.get(second[0]) == b"second"
