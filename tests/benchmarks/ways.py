"""The models of the serving benchmark, and every way of asking for them."""

import contextlib
import json
import mmap
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.benchmarks import beside, lean
from tests.benchmarks.beside import Nothing, Other
from tests.benchmarks.lean import Address, Line, Question
from tests.simulators import models, serving
from tests.simulators.serving import Running

CONNECTIONS = 8
WAYS = {
    "mlp": ("JSON TCP", "JSON Unix", "binary TCP", "binary Unix", "shared TCP", "shared Unix"),
    "cnn": ("binary TCP", "binary Unix", "shared Unix", "alone TCP", "alone Unix"),
    "echo": ("binary TCP", "binary Unix", "shared TCP", "shared Unix"),
}
"""How each model is asked. `echo` passes 4.9 MB through; `alone` is binary, of a server that has
no other model."""


@dataclass(frozen=True)
class Case:
    """A model, its input, and the session that runs it without a server."""

    name: str
    input_name: str
    output_name: str
    array: NDArray[np.float32]
    path: Path

    def bare(self) -> Callable[[], Any]:
        """A call of `session.run`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(self.path), options)
        inputs = {self.input_name: self.array}
        return lambda: session.run(None, inputs)


def cases(folder: Path) -> tuple[Case, ...]:
    """A model of microseconds, a CNN of milliseconds, and 4.9 MB through an Identity."""
    random = np.random.default_rng(0)
    row = random.normal(size=(1, 8)).astype("f4")
    image = random.normal(size=(1, 3, 32, 32)).astype("f4")
    frame = random.normal(size=(1280, 960)).astype("f4")
    return (
        Case("mlp", "x", "y", row, models.mlp(folder / "mlp.onnx")),
        Case("cnn", "image", "logits", image, models.cnn(folder / "cnn.onnx", width=192)),
        Case("echo", "x", "y", frame, serving.echo(folder / "echo.onnx", "FP32")),
    )


class Region:
    """Shared memory with an input in its first half, registered with the server."""

    def __init__(self, server: Running, case: Case, out_bytes: int) -> None:
        key = f"trimtab-{uuid.uuid4().hex}"
        self.path = Path("/dev/shm") / key
        self.in_bytes, self.out_bytes = case.array.nbytes, out_bytes
        size = self.in_bytes + out_bytes
        self.path.write_bytes(bytes(size))
        with self.path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size)
        self.memory[: self.in_bytes] = case.array.tobytes()
        self.name = f"{case.name}-{os.getpid()}"
        body = json.dumps({"key": f"/{key}", "offset": 0, "byte_size": size}).encode()
        path = f"/v2/systemsharedmemory/region/{self.name}/register"
        status, _, answer = server.ask("POST", path, body)
        assert status == 200, answer

    def question(self, case: Case) -> Question:
        """Ask for what lies there, and for the answer to be put behind it."""

        def place(offset: int, size: int) -> dict[str, Any]:
            return {
                "shared_memory_region": self.name, "shared_memory_offset": offset,
                "shared_memory_byte_size": size,
            }  # fmt: skip

        given = {"name": case.input_name, "shape": case.array.shape, "datatype": "FP32"}
        wanted = {
            "name": case.output_name,
            "parameters": place(self.in_bytes, self.out_bytes),
        }
        text = json.dumps(
            {"inputs": [{**given, "parameters": place(0, self.in_bytes)}], "outputs": [wanted]}
        )
        return lean.question(f"/v2/models/{case.name}/infer", text.encode())

    def answer(self) -> NDArray[np.float32]:
        """What the server put there."""
        return np.frombuffer(self.memory[self.in_bytes :], "<f4")

    def close(self) -> None:
        """Remove it."""
        self.path.unlink()


@dataclass(frozen=True)
class Way:
    """One way of asking for one model: ours, the null server's, others', and the bare call."""

    name: str
    bare: Callable[[], Any]
    ours: tuple[Line, ...]
    floors: tuple[Line, ...]
    region: Region | None = None
    others: Mapping[str, Line] = field(default_factory=dict)

    def answered(self) -> NDArray[np.float32]:
        """What came first as the model's only output, flat."""
        if self.region is not None:
            return self.region.answer()
        line = self.ours[0]
        for each in line.head.lower().split(b"\r\n"):
            if each.startswith(b"inference-header-content-length"):
                return np.frombuffer(line.body[int(each.split(b":")[1]) :], "<f4")
        return np.array(json.loads(line.body)["outputs"][0]["data"], "f4")


def addresses(server: Running, unix: Path) -> dict[str, Address]:
    """Where a server listens."""
    host, port = server.address.split(":")
    return {"TCP": (host, int(port)), "Unix": unix}


@contextlib.contextmanager
def opened(
    server: Running,
    unix: Path,
    folder: Path,
    others: Sequence[Other] = (),
    *,
    alone: tuple[Running, Path] | None = None,
) -> Iterator[tuple[list[Way], Nothing]]:
    """Load the models and open the lines; `others` serve the same models, `alone` only one."""
    ours = addresses(server, unix)
    apart = {} if alone is None else addresses(*alone)
    with contextlib.ExitStack() as stack:
        floors = stack.enter_context(beside.nothing(folder))
        found = []

        def line(*given: Any, **options: Any) -> Line:
            made = Line(*given, **options)
            stack.callback(made.close)
            return made

        for case in cases(folder):
            server.load(case.name, case.path)
            if alone is not None and "alone TCP" in WAYS[case.name]:
                alone[0].load(case.name, case.path)
            bare = case.bare()
            region = Region(server, case, bare()[0].nbytes)
            stack.callback(region.close)
            for name in WAYS[case.name]:
                form, transport = name.split()
                if form == "alone" and transport not in apart:
                    continue
                if form == "shared":
                    asked = region.question(case)
                else:
                    asked = lean.infer(
                        case.name, case.input_name, case.array, binary=form != "JSON"
                    )
                place = (apart if form == "alone" else ours)[transport]
                lines = tuple(line(place, asked) for _ in range(CONNECTIONS))
                idle, size = floors.addresses[transport], lines[0].answer_bytes
                empty = tuple(line(idle, asked, answer_bytes=size) for _ in lines)
                strangers = {
                    other.name: line(other.addresses[transport], asked)
                    for other in others
                    if transport in other.addresses and form in other.forms
                }
                shared = region if form == "shared" else None
                found.append(Way(f"{case.name} {name}", bare, lines, empty, shared, strangers))
        yield found, floors
