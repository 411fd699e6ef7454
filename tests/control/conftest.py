"""A device with a published model of two versions, and what its compression would make."""

from pathlib import Path

import pytest

from tests.simulators.world import World, manifest, measured


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.published = {1: manifest(1), 2: manifest(2)}
    made.rungs = {
        "int8": measured(size_mib=0.9, agreement=0.995),
        "tiny": measured(size_mib=0.5, agreement=0.7),
    }
    return made
