"""Who is blamed for a death, and who is expelled; time is passed in."""

import pytest

from agent.host.blame import WINDOW_S, Blame
from agent.host.life import Pace
from agent.protocol.private import LoadRequest

A = LoadRequest(name="a", version=1, path="/a", sha256="a" * 64, index=1)
B = LoadRequest(name="b", version=1, path="/b", sha256="b" * 64, index=2)


def test_two_crashes_within_the_window_expel() -> None:
    blame = Blame()
    assert not blame.judge("killed", [A], now_s=0.0).expelled
    assert not blame.judge("killed", [B], now_s=1.0).expelled
    assert blame.judge("killed", [A], now_s=WINDOW_S - 0.1).expelled


def test_crashes_far_apart_do_not() -> None:
    blame = Blame()
    for round_ in range(5):
        assert not blame.judge("killed", [A], now_s=round_ * WINDOW_S).expelled


def test_another_file_under_the_same_name_begins_anew() -> None:
    blame = Blame()
    blame.judge("killed", [A], now_s=0.0)
    other = A.model_copy(update={"sha256": "c" * 64})
    assert not blame.judge("killed", [other], now_s=1.0).expelled


def test_a_kill_from_outside_blames_nobody_and_counts_for_nothing() -> None:
    blame = Blame()
    for _ in range(5):
        verdict = blame.judge("killed by SIGKILL", [A], now_s=0.0, by_others=True)
        assert verdict.blamed is None
        assert not verdict.expelled
        assert not verdict.unclear
    assert str(verdict) == "killed by SIGKILL, from outside (it was running a)"
    assert not blame.judge("killed by SIGSEGV", [A], now_s=1.0).expelled


def test_nobody_is_blamed_where_nobody_or_several_ran() -> None:
    blame = Blame()
    for _ in range(5):
        assert blame.judge("killed", [], now_s=0.0).blamed is None
        both = blame.judge("killed", [A, B], now_s=0.0)
        assert both.blamed is None
        assert both.unclear
        assert not both.expelled
        assert str(both) == "killed (it was running a, b)"


@pytest.mark.parametrize(
    ("deaths", "wait_s"), [(0, 0), (1, 0), (2, 0), (3, 0.5), (4, 1), (8, 16), (9, 30), (99, 30)]
)
def test_only_who_keeps_dying_is_restarted_later(deaths: int, wait_s: float) -> None:
    assert Pace().backoff_s(deaths) == wait_s
