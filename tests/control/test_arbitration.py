"""Several models under one device's room: who gets what, who steps down, who is refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.control import arbitration
from agent.control.arbitration import Claim, Option, Plan, Room


def option(peak_mib: float, cpu_share: float = 0.0) -> Option:
    return Option(sha256=f"{peak_mib}/{cpu_share}", label=f"{peak_mib} MiB", peak_mib=peak_mib,
                  cpu_share=cpu_share)  # fmt: skip


def claim(model: str, *peaks: float, serving: int | None = 0, **fields: Any) -> Claim:
    options = tuple(option(peak) for peak in peaks)
    return replace(Claim(model, options, serving), **fields)


def peaks(plan: Plan) -> dict[str, float]:
    return {model: one.peak_mib for model, one in plan.chosen.items()}


def test_where_all_fits_nobody_moves() -> None:
    claims = [claim("a", 40, 20), claim("b", 30, 10), claim("new", 20, serving=None)]
    plan = arbitration.arrange(claims, Room(memory_mib=130))  # 90 and 40 for a swap
    assert peaks(plan) == {"a": 40, "b": 30, "new": 20}
    assert plan.moved(claims) == ()
    assert not plan.refused


def test_the_one_that_takes_most_steps_down_for_a_new_one() -> None:
    claims = [claim("a", 40, 20), claim("b", 30, 10), claim("new", 20, serving=None)]
    plan = arbitration.arrange(claims, Room(memory_mib=129))
    assert peaks(plan) == {"a": 20, "b": 30, "new": 20}
    assert plan.moved(claims) == (("a", option(20)),)


def test_weight_is_what_taking_much_is_measured_by() -> None:
    claims = [claim("a", 40, 20, weight=4.0), claim("b", 30, 10), claim("new", 20, serving=None)]
    assert peaks(arbitration.arrange(claims, Room(memory_mib=129)))["b"] == 10


def test_lower_priority_steps_down_first_and_higher_never_for_lower() -> None:
    claims = [claim("a", 40, 20, priority=1), claim("b", 30, 10), claim("new", 20, serving=None)]
    plan = arbitration.arrange(claims, Room(memory_mib=129))
    assert peaks(plan) == {"a": 40, "b": 10, "new": 20}
    claims[1] = claim("b", 30, 25)
    plan = arbitration.arrange(claims, Room(memory_mib=120))  # without a's help it does not go
    assert peaks(plan) == {"a": 40, "b": 30}
    assert plan.refused["new"].startswith("3 models take 85 MiB, with 40 MiB for a swap")


def test_what_is_being_worked_on_stays() -> None:
    claims = [claim("a", 40, 20, fixed=True), claim("new", 20, serving=None)]
    plan = arbitration.arrange(claims, Room(memory_mib=90))
    assert plan.refused
    assert peaks(plan) == {"a": 40}


def test_the_worker_needs_its_room_too() -> None:
    claims = [claim("a", 10), claim("new", 40, serving=None)]
    assert not arbitration.arrange(claims, Room(memory_mib=90)).refused
    assert arbitration.arrange(claims, Room(memory_mib=90, worker_mib=1)).refused


def test_one_alone_can_be_replaced_in_its_place() -> None:
    claims = [claim("new", 80, serving=None)]
    assert not arbitration.arrange(claims, Room(memory_mib=80, worker_mib=10)).refused
    assert arbitration.arrange(claims, Room(memory_mib=79)).refused


def test_the_share_of_the_cpu_is_one_sum_too() -> None:
    quick = Option("quick", "quick", 10, 0.1)
    slow = Option("slow", "slow", 10, 0.5)
    claims = [Claim("a", (slow, quick), 0), Claim("new", (slow,), None)]
    plan = arbitration.arrange(claims, Room(cpu_share=0.6))
    assert plan.chosen == {"a": quick, "new": slow}
    plan = arbitration.arrange(claims, Room(cpu_share=0.55))
    assert plan.refused == {"new": "2 models take 60.0% of the CPU, more than 55.0%"}


def test_what_left_is_given_back_to_the_first_by_priority() -> None:
    claims = [claim("a", 40, 20, serving=1), claim("b", 40, 20, serving=1, priority=1)]
    plan = arbitration.arrange(claims, Room(memory_mib=105), raising=True)
    assert peaks(plan) == {"a": 20, "b": 40}
    assert peaks(arbitration.arrange(claims, Room(memory_mib=105))) == {"a": 20, "b": 20}


def test_when_the_room_shrinks_what_serves_goes_on_serving() -> None:
    claims = [claim("a", 40, 20), claim("b", 30)]
    plan = arbitration.arrange(claims, Room(memory_mib=10))
    assert peaks(plan) == {"a": 20, "b": 30}
    assert not plan.refused


CASES = {
    "alone": ([], Room(memory_mib=100), 50.0),  # itself, and room to be swapped beside itself
    "half by weight": ([claim("a", 20)], Room(memory_mib=100), 40.0),  # 80 are left for it
    "what others would leave": ([claim("a", 60, 10)], Room(memory_mib=100), 25.0),
    "who has more priority keeps it": (
        [claim("a", 45, 10, priority=1)], Room(memory_mib=100), 10.0,
    ),
    "nothing": ([claim("a", 60)], Room(memory_mib=100), 0.0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_new_model_may_take_its_part_or_what_is_left(case: str) -> None:
    others, room, wanted = CASES[case]
    found, _ = arbitration.allowance(claim("new", 1, serving=None), others, room)
    assert found == wanted


# --- for whatever claims there are ---------------------------------------------------------

OPTIONS = st.lists(
    st.builds(
        Option,
        sha256=st.uuids().map(str),
        label=st.just("option"),
        peak_mib=st.integers(1, 60).map(float),
        cpu_share=st.sampled_from([0.0, 0.05, 0.1, 0.2]),
    ),
    min_size=1,
    max_size=4,
).map(tuple)


@st.composite
def claimed(draw: st.DrawFn) -> list[Claim]:
    found = []
    for number in range(draw(st.integers(1, 5))):
        options = draw(OPTIONS)
        serving = draw(st.none() | st.integers(0, len(options) - 1))
        found.append(
            Claim(
                f"m{number}", options, serving, priority=draw(st.integers(0, 2)),
                weight=draw(st.sampled_from([0.5, 1.0, 2.0])),
                fixed=serving is not None and draw(st.booleans()),
            )
        )  # fmt: skip
    return found


ROOMS = st.builds(
    Room,
    memory_mib=st.integers(5, 300).map(float),
    cpu_share=st.sampled_from([0.1, 0.3, 0.6, 1.0]),
    worker_mib=st.sampled_from([0.0, 20.0]),
)


def fits(options: list[Option], room: Room) -> bool:
    return room.left_mib(options) >= 0 and room.left_cpu(options) >= -1e-9


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_all_that_is_told_to_serve_fits_unless_what_serves_alone_does_not(
    claims: list[Claim], room: Room
) -> None:
    plan = arbitration.arrange(claims, room)
    new = [one.model for one in claims if one.serving is None]
    if set(new) - set(plan.refused):
        assert fits(list(plan.chosen.values()), room)
    assert set(plan.refused) <= set(new)
    assert set(plan.chosen) | set(plan.refused) == {one.model for one in claims}


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_nobody_moves_up_and_what_is_fixed_not_at_all(claims: list[Claim], room: Room) -> None:
    plan = arbitration.arrange(claims, room)
    for one in claims:
        if one.serving is not None:
            at = one.options.index(plan.chosen[one.model])
            assert at >= one.serving
            assert at == one.serving or not one.fixed


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_nobody_steps_down_for_less_priority_than_its_own(claims: list[Claim], room: Room) -> None:
    new = [one.priority for one in claims if one.serving is None]
    assume(new)
    before = [one.options[one.serving] for one in claims if one.serving is not None]
    assume(fits(before, room))
    plan = arbitration.arrange(claims, room)
    for model, _ in plan.moved(claims):
        assert next(one for one in claims if one.model == model).priority <= max(new)


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_nobody_gave_up_what_still_fits(claims: list[Claim], room: Room) -> None:
    plan = arbitration.arrange(claims, room)
    for one in claims:
        if one.model in plan.refused:
            continue
        top = one.serving or 0
        for better in one.options[top : one.options.index(plan.chosen[one.model])]:
            others = [option for model, option in plan.chosen.items() if model != one.model]
            assert not fits([*others, better], room)


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_a_plan_that_was_followed_asks_for_nothing_more(claims: list[Claim], room: Room) -> None:
    after = arbitration.settled(claims, arbitration.arrange(claims, room))
    assert arbitration.arrange(after, room).moved(after) == ()


@settings(deadline=None)
@given(claimed(), ROOMS)
def test_what_may_be_taken_fits_once_the_others_have_stepped_down(
    claims: list[Claim], room: Room
) -> None:
    others = [one for one in claims if one.serving is not None]
    asking = Claim("asking", (option(1),), None, priority=3)
    mib, share = arbitration.allowance(asking, others, room)
    assume(mib > 0)
    assume(share > 0)
    wanted = Claim("asking", (option(mib, share),), None, priority=3)
    assert not arbitration.arrange([*others, wanted], room).refused
