"""OBSERVING: a variant that is fine in the trial stays only where live answers say so too."""

import asyncio

import numpy as np
import pytest

from agent.control import observation
from agent.control.observation import Counters, Seen, judge
from agent.control.states import State
from agent.protocol import sketch
from agent.protocol.capturing import Compared
from agent.protocol.sketch import Sketch
from compression.alike.interval import wilson
from compression.findings import Agreement
from compression.job import Budget
from tests.control.orders import deploy, ended
from tests.simulators.world import World, measured

WATCHED = {"observe_minutes": 10.0, "observe_requests": 100}


async def test_a_variant_that_agrees_live_stays_and_the_figures_are_told(world: World) -> None:
    state, message = ended(await deploy(world.deployer(), **WATCHED))
    assert state is State.LIVE
    assert message == "'int8' serves; 120 live answers agree at 0.995 [0.995, 0.995]"
    states = [state for kind, state, _ in world.events if kind == "state"]
    assert states[-3:] == ["switching", "observing", "live"]
    told = world.figures[[kind for kind, _, _ in world.events].index("observed")]
    assert told["keep"] is True
    assert told["compared"] == 120


async def test_a_variant_that_is_wrong_live_is_rolled_back_with_the_figures(world: World) -> None:
    world.live = measured(agreement=0.71)
    deployer = world.deployer()
    record = await deploy(deployer, **WATCHED)
    state, message = ended(record)
    assert state is State.LIVE
    assert world.live_label() == "model"
    assert message == (
        "cannot keep 'int8': agreement 0.710 [0.710, 0.710] on 40 live requests, at least 0.980 "
        "is wanted; 'original' of version 1 serves again"
    )
    told = world.figures[[kind for kind, _, _ in world.events].index("observed")]
    assert (told["keep"], told["agreement"], told["compared"]) == (False, 0.71, 40)
    # It is not chosen again, by no later command.
    record = await deploy(deployer, 1, "command-2", **WATCHED)
    assert "no variant was made" in ended(record)[1] or "nearest" in ended(record)[1]
    assert world.live_label() == "model"


async def test_a_new_version_that_is_wrong_live_gives_way_to_its_own_original(world: World) -> None:
    deployer = world.deployer()
    await deploy(deployer)
    world.live = measured(agreement=0.5)
    record = await deploy(deployer, 2, "command-2", **WATCHED)
    assert ended(record)[0] is State.LIVE
    assert record.live is not None
    assert (record.live.version, record.live.label) == (2, "original")


async def test_without_traffic_the_minutes_end_it(world: World) -> None:
    world.traffic = 0
    state, message = ended(await deploy(world.deployer(), **WATCHED))
    assert (state, message) == (State.LIVE, "'int8' serves; nothing was compared in 10.0 min")


async def test_where_memory_holds_no_second_model_nothing_is_compared_and_that_is_told(
    world: World,
) -> None:
    world.available_mib = 80.0
    state, message = ended(await deploy(world.deployer(), **WATCHED))
    assert state is State.LIVE
    assert message.endswith(
        "nothing was compared in 10.0 min: the original beside it needs 84 MiB, 80 are available"
    )
    assert "shadow" not in world.counts


async def test_cancelling_an_observation_takes_the_variant_back_and_trusts_it_later(
    world: World,
) -> None:
    deployer = world.deployer()
    cancelling: list[asyncio.Task[str]] = []

    async def cancel() -> None:
        del world.before["shadow"]
        cancelling.append(asyncio.create_task(deployer.cancel("m")))
        await asyncio.Event().wait()

    world.before["shadow"] = cancel
    with pytest.raises(asyncio.CancelledError):
        await deploy(deployer, **WATCHED)
    await cancelling[0]
    assert ended(await deployer.wait("m")) == (
        State.LIVE, "cancelled by command; 'original' of version 1 serves again",
    )  # fmt: skip
    assert world.live_label() == "model"
    assert ended(await deploy(deployer, 1, "command-2", **WATCHED))[0] is State.LIVE
    assert world.live_label() == "int8"


async def test_a_crash_while_it_is_observed_rolls_back_and_keeps_the_servers_log(
    world: World,
) -> None:
    deployer = world.deployer()
    crashing: list[asyncio.Task[None]] = []

    async def crash() -> None:
        del world.before["shadow"]
        why = "killed by SIGFPE; expelled: 2 crashes within 10 min"
        crashing.append(asyncio.create_task(deployer.lost("m", why, "Fatal Python error")))
        await asyncio.Event().wait()

    world.before["shadow"] = crash
    with pytest.raises(asyncio.CancelledError):
        await deploy(deployer, **WATCHED)
    await crashing[0]
    state, message = ended(await deployer.wait("m"))
    assert state is State.LIVE
    assert world.live_label() == "model"
    assert message.startswith("fell back: killed by SIGFPE; expelled")
    at = [state for _, state, _ in world.events].index("restoring")
    assert world.figures[at]["log"] == "Fatal Python error"


def agreement(value: float, low: float, high: float) -> Agreement:
    return Agreement(
        value=value, low=low, high=high, kind="logits", output="y", samples=40, split="live"
    )


def latencies(ms: float, count: int = 100) -> Counters:
    held = Sketch()
    for _ in range(count):
        held.add(ms)
    return Counters(count, 0, sketch.merged([held.freeze()]))


def seen(**changes: object) -> Seen:
    given: dict[str, object] = {
        "compared": Compared(), "now": Counters(), "before": Counters(), "elapsed_s": 1.0,
    }  # fmt: skip
    return Seen(**(given | changes))  # type: ignore[arg-type]  # a table of fields


@pytest.mark.parametrize(
    ("value", "high", "compared", "kept"),
    [
        (0.90, 0.979, 100, False),  # at the end its 95 % interval is below
        (0.90, 0.981, 100, True),
        (0.90, 0.979, 40, True),  # before the end that is not sure enough
        (0.90, 0.940, 40, False),
        (0.10, 0.300, 19, True),
        (0.10, 0.300, 20, False),
    ],
)
def test_only_what_is_surely_below_the_least_agreement_goes_back(
    value: float, high: float, compared: int, kept: bool
) -> None:
    shown = Compared(compared=compared, agreement=agreement(value, 0.0, high))
    verdict = judge(
        seen(compared=shown), Budget(min_agreement=0.98), promised_ratio=1.0, wanted=100,
        window_s=600,
    )  # fmt: skip
    assert (not verdict.reasons) is kept


@pytest.mark.prove
@pytest.mark.parametrize(("true", "most"), [(0.98, 0.12), (0.99, 0.03), (0.995, 0.01)])
def test_looking_again_and_again_takes_back_little_that_is_good(true: float, most: float) -> None:
    """Share of observations of 200 answers, judged after each, that end with a way back."""
    chance = np.random.default_rng(0)
    taken_back = 0
    for _ in range(1000):
        right = np.cumsum(chance.random(200) < true)
        for count in range(20, 201):
            low, high = wilson(float(right[count - 1]) / count, count)
            shown = agreement(right[count - 1] / count, low, high)
            found = judge(
                seen(compared=Compared(compared=count, agreement=shown)),
                Budget(min_agreement=0.98), promised_ratio=1.0, wanted=200, window_s=600,
            )  # fmt: skip
            if found.reasons:
                taken_back += 1
                break
    print(f"true agreement {true}: {taken_back / 10:.1f} % taken back")
    assert taken_back / 1000 <= most


@pytest.mark.parametrize(
    ("now_ms", "before_ms", "promised", "kept"),
    [
        (5.0, 5.0, 0.6, True),
        (9.0, 5.0, 0.6, True),
        (11.0, 5.0, 0.6, False),
        (11.0, 5.0, 1.5, True),
        (0.9, 0.1, 0.6, True),  # less than a millisecond is the way, not the model
    ],
)
def test_a_variant_far_slower_than_the_trial_promised_goes_back(
    now_ms: float, before_ms: float, promised: float, kept: bool
) -> None:
    shown = seen(now=latencies(now_ms), before=latencies(before_ms))
    verdict = judge(shown, Budget(), promised_ratio=promised, wanted=100, window_s=600)
    assert (not verdict.reasons) is kept


def test_a_live_p95_far_over_the_budget_goes_back() -> None:
    found = judge(
        seen(now=latencies(16.0)), Budget(latency_p95_ms=10), promised_ratio=1.0, wanted=9,
        window_s=600,
    )  # fmt: skip
    assert found.reasons[0].startswith("live p95 1")
    assert "1.5 x the budget's 10.0 ms" in found.reasons[0]


def test_few_requests_say_nothing_of_latency() -> None:
    shown = seen(now=latencies(50.0, count=49), before=latencies(1.0))
    assert not judge(shown, Budget(), promised_ratio=1.0, wanted=9, window_s=600).reasons


@pytest.mark.parametrize(
    ("elapsed_s", "compared", "over"), [(599, 99, False), (600, 0, True), (1, 100, True)]
)
def test_it_ends_with_enough_answers_or_the_window(
    elapsed_s: float, compared: int, over: bool
) -> None:
    shown = seen(elapsed_s=elapsed_s, compared=Compared(compared=compared))
    assert judge(shown, Budget(), promised_ratio=1.0, wanted=100, window_s=600).over is over
    assert observation.sentence(shown).startswith("nothing was compared")


async def test_an_observation_goes_on_after_a_restart(world: World) -> None:
    deployer = world.deployer()

    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    world.before["shadow"] = hang
    running = asyncio.create_task(deploy(deployer, **WATCHED))
    await reached.wait()
    await deployer.stop()
    running.cancel()
    world.before.clear()
    world.loaded.clear()
    again = world.deployer()
    assert await again.resume() == []
    assert world.live_label() == "int8"
    state, message = ended(await again.wait("m"))
    assert state is State.LIVE
    assert "live answers agree" in message
