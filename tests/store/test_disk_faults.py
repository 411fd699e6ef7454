"""A pull on a disk that fails, fills up or loses its power at any one of its calls."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import Unavailable
from agent.store.download import fetch_file
from tests.store.files import Published, Shelf, a_file, publish

CALLS = ("open", "pwrite", "write", "fdatasync", "fsync", "posix_fallocate", "ftruncate", "replace")
WHOLE = a_file(20_000) + bytes(4_000)
EVERY = [6, pytest.param(1, marks=pytest.mark.prove)]
"""Every how many calls there is a case."""


class Fault:
    """Counts the calls that change the disk, and does something instead of the nth."""

    def __init__(self, at: int, instead: Callable[..., Any]) -> None:
        self.at, self.instead, self.calls = at, instead, 0

    def wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                return self.instead(call, *arguments, **options)
            return call(*arguments, **options)

        return wrapper


@contextlib.contextmanager
def faulty(fault: Fault) -> Any:
    """The disk of this process, with one fault."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, fault.wrapped(getattr(os, name)))
        yield


def pull(published: Published, folder: Path) -> None:
    shelf = Shelf(published.blobs)
    asyncio.run(fetch_file(published.ref, get=shelf.get, target=folder / "out", window=10))


def moments(published: Published, folder: Path) -> int:
    """How many calls an undisturbed pull makes."""
    fault = Fault(-1, lambda _: None)
    with faulty(fault):
        pull(published, folder)
    return fault.calls


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EFBIG])
def test_a_disk_that_fails_at_any_write_is_told_and_the_next_pull_ends_whole(
    number: int, every: int, tmp_path: Path
) -> None:
    published = publish(WHOLE, encoding="zstd")
    ended = []

    def fails(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    for at in range(1, moments(published, tmp_path / "first") + 1, every):
        folder = tmp_path / f"{number}-{at}"
        with faulty(Fault(at, fails)):
            try:
                pull(published, folder)
            except Unavailable as error:
                ended.append(str(error))
        pull(published, folder)
        assert (folder / "out").read_bytes() == WHOLE
        assert not list(folder.glob("*.partial"))
    why = {errno.ENOSPC: "the disk is full", errno.EROFS: "the disk is read-only"}
    assert all(why.get(number, "") in message for message in ended)
    assert len(ended) > 10 / every  # the rest were calls that a pull can do without


def _in_a_child(work: Callable[[], None]) -> int:
    """Run `work` in a fork of this process; its exit status."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _dies(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    os._exit(9)


def _dies_in_the_middle(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if call.__name__ in {"pwrite", "write"}:  # half of it has reached the disk
        handle, content, *rest = arguments
        call(handle, content[: len(content) // 2], *rest, **options)
    os._exit(9)


def _dies_behind(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    call(*arguments, **options)
    os._exit(9)


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("dies", [_dies, _dies_in_the_middle, _dies_behind])
def test_killed_before_in_or_behind_any_write_it_ends_the_same(
    dies: Callable[..., Any], every: int, tmp_path: Path
) -> None:
    published = publish(WHOLE)
    for at in range(1, moments(published, tmp_path / "first") + 1, every):
        folder = tmp_path / str(at)

        def die(at: int = at, folder: Path = folder) -> None:
            with faulty(Fault(at, dies)):
                pull(published, folder)

        assert _in_a_child(die) == 9
        pull(published, folder)
        assert (folder / "out").read_bytes() == WHOLE
        assert sorted(path.name for path in folder.iterdir()) in (
            ["out", "out.index"],
            ["out", "out.index", "out.journal"],  # the kill came behind the rename
        )
