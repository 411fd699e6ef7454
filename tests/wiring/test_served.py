"""A server that dies: everybody is told, and just the model that it lost falls back."""

import asyncio
from pathlib import Path

import pytest

from agent.control.announcer import Announcer
from agent.protocol.events import Event
from agent.wiring.served import Deaths
from tests.control.orders import deploy
from tests.simulators.world import World, manifest, measured


class Server:
    """What serves, by name."""

    def __init__(self, **live: str) -> None:
        self._live = live

    def live(self) -> dict[str, str]:
        return self._live


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.published = {1: manifest(1)}
    made.rungs = {"int8": measured(size_mib=0.9, agreement=0.995)}
    return made


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def deaths(told: list[Event]) -> Deaths:
    announcer = Announcer(
        "pole-7", enqueue=lambda _, event: told.append(event), changed=lambda: None,
        clock=lambda: 0.0,
    )  # fmt: skip
    return Deaths(announcer)


@pytest.mark.parametrize(
    ("blamed", "live", "serves"),
    [
        ("m", {}, "model"),
        ("m", {"m": "loaded again"}, "int8"),
        (None, {}, "int8"),
        ("unknown", {}, "int8"),
    ],
    ids=["expelled", "given another chance", "nobody's fault", "not deployed here"],
)
async def test_a_model_falls_back_where_it_is_to_blame_and_the_server_has_given_it_up(
    world: World, deaths: Deaths, told: list[Event], *,
    blamed: str | None, live: dict[str, str], serves: str,
) -> None:  # fmt: skip
    deployer = world.deployer()
    await deploy(deployer)
    assert world.live_label() == "int8"
    deaths.begin(Server(**live), deployer)  # type: ignore[arg-type]  # it is asked this alone
    deaths.died(blamed, "killed by SIGSEGV", "its last words")
    while falling := [t for t in asyncio.all_tasks() if t.get_name().startswith("fall back")]:
        await asyncio.wait(falling)
    await deployer.wait("m")
    assert world.live_label() == serves
    (event,) = told
    assert "the server died (killed by SIGSEGV)" in event.message
    assert (blamed is None) == ("while it ran" not in event.message)
    assert event.figures["log"] == "its last words"


def test_a_death_before_anything_was_deployed_is_told(deaths: Deaths, told: list[Event]) -> None:
    deaths.died("m", "exit code 1", "")
    assert [event.message for event in told] == ["the server died (exit code 1) while it ran m"]
