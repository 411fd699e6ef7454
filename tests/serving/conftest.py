"""A server that allows shared memory, a client of it, and objects in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from tritonclient.utils import shared_memory

from agent.host.offer import Offer
from tests.serving.in_memory import Client, Memory
from tests.simulators import models, serving
from tests.simulators.serving import Running


@pytest.fixture(scope="module")
def sharer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with serving.running(offer=Offer(shared_memory=True)) as server:
        server.load("echo", serving.echo(folder / "echo.onnx", "FP32"))
        server.load("texts", serving.echo(folder / "texts.onnx", "BYTES"))
        server.load("truths", serving.echo(folder / "truths.onnx", "BOOL"))
        server.load("pair", serving.pair(folder / "pair.onnx"))
        server.load("nonzero", nonzero(folder / "nonzero.onnx"))
        server.load("slow", serving.slow(folder / "slow.onnx", layers=4))
        yield server


def nonzero(path: Path) -> Path:
    """Write a model whose output's shape depends on values: `x` [N] -> `y` [1, K]."""
    nodes = [onnx.helper.make_node("NonZero", ["x"], ["y"])]
    kinds = {"y": onnx.TensorProto.INT64}
    return models.save(path, nodes, {}, {"x": ("N",)}, {"y": (1, "K")}, dtypes=kinds)


@pytest.fixture
def client(sharer: Running) -> Iterator[Client]:
    with Client(sharer.address) as client:
        yield client
        client.unregister_system_shared_memory()


@pytest.fixture
def memory() -> Iterator[Callable[[int], Memory]]:
    made: list[Memory] = []

    def make(size: int) -> Memory:
        made.append(Memory(size))
        return made[-1]

    yield make
    for each in made:
        shared_memory.destroy_shared_memory_region(each.handle)
