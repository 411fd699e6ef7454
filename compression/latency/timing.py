"""Times kernels in the trial's process: CPU time against a product of matrices timed between.

What disturbs a device (clocks, others in the caches) slows both, and cancels in the ratio.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compression import runtime
from compression.errors import BadModel
from compression.job import KernelCosts, KernelJob, Runtime
from compression.ruler.pace import Pace

COPIES = 4
"""Of a node in one model, each with weights of its own: what calling costs is shared, and weights
come from where they come from in a large model."""
MOST_BYTES = 8 * 2**20
"""Of all copies' weights; larger ones stand alone."""
BLOCKS = 9
BLOCK_S = 0.002
"""Short and many: on a busy device one of them is left alone."""
_EDGE = 160
_REFERENCES = 5
_MOST_RUNS = 2000
_ROW = 33
_LEAST = 1e-4
"""What a kernel costs at least: it is run, however little it does."""
_OPSET = 17
Run = Callable[[], None]


def measure(job: KernelJob) -> KernelCosts:
    """Time each model of a job, as long as there is time (at least one); None: it does not run.

    A cost is the CPU time of one node over that of one reference, a product of two float matrices
    of 160 x 160: the quickest of some blocks of each, which take turns. Work that others do only
    ever adds. What a call of a session costs is taken out.
    """
    deadline = time.monotonic() + job.seconds
    reference = _reference(job.runtime)
    calling = _calling(job.runtime, reference)
    pace = Pace()
    costs: list[float | None] = []
    reference_us = 0.0
    for path in job.kernels:
        if costs and time.monotonic() > deadline:
            break
        try:
            copies, run = _copied(Path(path), job.runtime)
            ratio, reference_us = _per_run(run, reference)
            costs.append(max(_LEAST, (ratio - calling) / copies))
        except BadModel:
            costs.append(None)
        pace.rest()
    late = (None,) * (len(job.kernels) - len(costs))
    return KernelCosts(
        costs=(*costs, *late),
        timed=len(costs),
        reference_us=reference_us,
        calling=_session(job.runtime, reference),
    )


def _per_run(run: Run, reference: Run) -> tuple[float, float]:
    """CPU time of one run over that of one reference, and the reference's in microseconds."""
    run()
    began = time.perf_counter()
    run()
    once_s = max(time.perf_counter() - began, 1e-7)
    runs = max(1, min(_MOST_RUNS, round(BLOCK_S / once_s)))
    blocks: list[float] = []
    references: list[float] = []
    for _ in range(BLOCKS):
        start = time.process_time_ns()
        for _ in range(runs):
            run()
        between = time.process_time_ns()
        for _ in range(_REFERENCES):
            reference()
        references.append(max(1, time.process_time_ns() - between) / _REFERENCES)
        blocks.append((between - start) / runs)
    return min(blocks) / min(references), min(references) / 1000


def _copied(path: Path, how: Runtime) -> tuple[int, Run]:
    """A kernel several times in one model, reading the same activations."""
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf raises what it likes
        raise BadModel(f"cannot read {path.name}: {runtime.one_line(error)}") from error
    graph = model.graph
    weight = sum(tensor.ByteSize() for tensor in graph.initializer)
    copies = COPIES if COPIES * weight <= MOST_BYTES else 1
    many = onnx.GraphProto(name="kernels", input=graph.input)
    for copy in range(copies):
        for tensor in graph.initializer:
            own = many.initializer.add()
            own.CopyFrom(tensor)
            own.name = f"{tensor.name}::{copy}"
        held = {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            one = many.node.add()
            one.CopyFrom(node)
            one.name = f"{node.name}::{copy}"
            for at, name in enumerate(node.input):
                one.input[at] = f"{name}::{copy}" if name in held else name
            for at, name in enumerate(node.output):
                one.output[at] = f"{name}::{copy}" if name else ""
            many.output.extend(onnx.ValueInfoProto(name=name) for name in one.output[:1] if name)
    model.graph.CopyFrom(many)
    return copies, _bound(model, how)


def _bound(model: onnx.ModelProto, how: Runtime) -> Run:
    """What runs a model once on inputs that lie ready."""
    loaded = runtime.session(model, runtime.options(how, optimization="disabled"))
    return runtime.ready(loaded, _inputs(loaded))


def _inputs(loaded: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    found = {}
    for spec in runtime.inputs(loaded):
        if np.issubdtype(np.dtype(spec.dtype), np.floating):
            found[spec.name] = random.normal(size=spec.shape).astype(spec.dtype)
        else:
            found[spec.name] = random.integers(0, 100, spec.shape).astype(spec.dtype)
    return found


def _reference(how: Runtime) -> Run:
    values = np.random.default_rng(0).normal(size=(_EDGE, _EDGE)).astype(np.float32)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    held = numpy_helper.from_array(values, "w")
    return _bound(_model([product], values.shape, ["y"], held), how)


def _calling(how: Runtime, reference: Run) -> float:
    """What a call costs, with as many outputs as there are copies, and no node.

    A node costs something itself, which is its own: a row of them says how much.
    """
    one, row, beside = (
        _per_run(_bound(model, how), reference)[0]
        for model in (_nothing(1), _nothing(_ROW, in_a_row=True), _nothing(COPIES))
    )
    node = max(0.0, (row - one) / (_ROW - 1))
    return max(0.0, beside - COPIES * node)


def _session(how: Runtime, reference: Run) -> float:
    """What a run costs as a server or a trial asks for it: arrays in, arrays out."""
    loaded = runtime.session(_nothing(1), runtime.options(how))
    given = _inputs(loaded)
    return _per_run(lambda: loaded.run(None, given), reference)[0]


def _nothing(nodes: int, *, in_a_row: bool = False) -> onnx.ModelProto:
    """A model of nodes that do nothing, one behind the other or each with an output."""
    names = [f"y{at}" for at in range(nodes)]
    reads = ["x", *names[:-1]] if in_a_row else ["x"] * nodes
    made = [helper.make_node("Identity", [x], [y]) for x, y in zip(reads, names, strict=True)]
    return _model(made, (1,), names[-1:] if in_a_row else names)


def _model(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], outputs: list[str],
    *weights: onnx.TensorProto,
) -> onnx.ModelProto:  # fmt: skip
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
