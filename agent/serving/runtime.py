"""One loaded model in onnxruntime: load, check inputs, run (its only importer in the agent)."""

import ctypes
import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnxruntime as ort

from agent.errors import BadInput, Corrupt, TrimtabError, Unavailable
from agent.protocol import tensors
from agent.protocol.oip import Spec
from agent.protocol.tensors import Array
from compression.errors import BadModel
from compression.job import Runtime
from compression.packed import reading

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_OPTIMIZATION = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# What onnxruntime raises for what the caller gave, as opposed to a failure of its own.
_CALLERS_FAULT = ort.capi.onnxruntime_pybind11_state.InvalidArgument


class CannotRun(TrimtabError):
    """The model failed while it ran, on inputs that fit it."""


class Stop:
    """Stops a run from another thread, at the next node of the graph."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        # Where it is not given, run_with_iobinding finds that out by an exception, in 40 us.
        self.options.add_run_config_entry("gpu_graph_id", "0")
        self.asked = False

    def now(self) -> None:
        """Let the run fail as soon as it can."""
        self.asked = self.options.terminate = True


class Bound:
    """Inputs and outputs that lie where they are, bound once; the arrays keep the memory."""

    def __init__(
        self,
        session: ort.InferenceSession,
        binding: Any,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> None:
        self.binding = binding
        self.run = functools.partial(session.run_with_iobinding, binding)
        """Run now, on this thread; `told` says what its errors mean."""
        self.size = sum(array.nbytes for array in inputs.values())
        """Of the inputs, in bytes."""
        self.inputs = inputs
        self.outputs = tuple(outputs)
        self.arrays = list(outputs.values())
        self.flat = [array.ravel() for array in self.arrays]
        """The same memory in one dimension."""


class Model:
    """A session and what it takes and gives."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.inputs = tuple(_spec(each, "input") for each in session.get_inputs())
        self.outputs = tuple(_spec(each, "output") for each in session.get_outputs())
        self.output_names = tuple(spec.name for spec in self.outputs)

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Check names, datatypes and shapes against the model's inputs.

        Raises:
            BadInput: naming the input, and what is wrong with it.
        """
        for name, dtype, shape in self.inputs:
            array = inputs.get(name)
            if array is None:
                raise BadInput(f"cannot run without input '{name}': given are {_names(inputs)}")
            if array.dtype != dtype:
                raise BadInput(
                    f"cannot use input '{name}': {tensors.NAMES[array.dtype]}, "
                    f"the model takes {tensors.NAMES[dtype]}"
                )
            if array.shape != shape and not _fits(array.shape, shape):
                raise BadInput(
                    f"cannot use input '{name}': shape {list(array.shape)}, "
                    f"the model takes {list(shape)}"
                )
        if len(inputs) != len(self.inputs):
            odd = set(inputs) - {spec.name for spec in self.inputs}
            raise BadInput(f"cannot use input {_names(odd)}: the model has no such input")

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], *, stop: Stop | None = None
    ) -> list[Array]:
        """Run on checked inputs; the arrays of `outputs` in their order.

        Raises:
            BadInput: onnxruntime finds the inputs wrong, for example an index out of range.
            CannotRun: it fails for another reason, for example memory.
        """
        try:
            options = None if stop is None else stop.options
            arrays: list[Array] = self._session.run(outputs, inputs, options)
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise told(error) from error
        return arrays

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Bound:
        """Bind checked inputs and outputs of known shape, all aligned, to the memory they lie in.

        Raises:
            CannotRun: onnxruntime cannot bind them.
        """
        binding = self._session.io_binding()
        for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
            for name, array in arrays.items():
                place = ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
                try:
                    bind(name, *place)
                except Exception as error:  # as above
                    raise CannotRun(f"cannot bind '{name}': {_line(error)}") from error
        return Bound(self._session, binding, inputs, outputs)

    def run_bound(self, bound: Bound, *, stop: Stop | None = None) -> list[Array]:
        """Run on bound inputs; the arrays of the outputs where they were bound.

        Raises:
            BadInput, CannotRun: as `run`; an output of another shape than was bound, too.
        """
        try:
            options = None if stop is None else stop.options
            self._session.run_with_iobinding(bound.binding, options)
        except Exception as error:  # as above
            raise told(error) from error
        return bound.arrays

    def close(self) -> None:
        """Free the session now, whatever else still refers to this object."""
        del self._session


def load(path: Path, *, sha256: str, runtime: Runtime) -> Model:
    """Load a model file from its path, after its bytes have been checked.

    From the path, because a session made from bytes holds the whole model a second time; a packed
    file has a path to its expansion while it loads.

    Raises:
        Corrupt: the file's bytes, as they lie there, have another sha256.
        BadInput: there is no such file, it is not ONNX, it cannot be expanded, or onnxruntime
            cannot run it.
        Unavailable: the device has no memory for it now.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot load {path}: {error.strerror}") from error
    if found != sha256:
        raise Corrupt(f"cannot load {path}: its sha256 is {found[:12]}, not {sha256[:12]}")
    try:
        with reading.opened(path) as source:
            session = ort.InferenceSession(
                str(source), _options(runtime), providers=["CPUExecutionProvider"]
            )
    except BadModel as error:
        raise BadInput(f"cannot load {path}: {error}") from error
    except MemoryError as error:
        raise Unavailable(f"cannot load {path}: no memory is left for it") from error
    except Exception as error:
        if "bad_alloc" in str(error):
            raise Unavailable(f"cannot load {path}: no memory is left for it") from error
        raise BadInput(f"cannot load {path}: {_line(error)}") from error
    return Model(session)


def give_back_memory() -> None:
    """Return freed memory to the system (glibc keeps it otherwise; musl needs no such call)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _options(runtime: Runtime) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = runtime.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = _OPTIMIZATION[runtime.optimization]
    options.enable_cpu_mem_arena = runtime.arena
    options.enable_mem_pattern = runtime.pattern
    if not runtime.pattern:  # as compression/runtime.py has it
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.log_severity_level = 3
    # Spinning threads eat the cores that the rest of the device needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # It drops zeros padded before a MaxPool, whose own padding is minus infinity.
    options.add_session_config_entry("optimization.disable_specified_optimizers", "Pad_Fusion")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _spec(node: Any, what: str) -> Spec:
    if node.type not in _DATATYPES:
        raise BadInput(f"cannot serve {what} '{node.name}' of type {node.type}")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    return Spec(node.name, tensors.DATATYPES[_DATATYPES[node.type]], shape)


def _fits(shape: tuple[int, ...], free: tuple[int, ...]) -> bool:
    """Whether a shape is one of those that the model takes; dims of -1 are free."""
    return len(shape) == len(free) and all(
        want in (-1, dim) for want, dim in zip(free, shape, strict=True)
    )


def told(error: Exception) -> TrimtabError:
    """What an error of onnxruntime's means here: BadInput or CannotRun."""
    if isinstance(error, _CALLERS_FAULT):
        return BadInput(f"cannot run on these inputs: {_line(error)}")
    return CannotRun(f"cannot run the model: {_line(error)}")


def _names(names: Mapping[str, Any] | set[str]) -> str:
    return ", ".join(f"'{name[:60]}'" for name in sorted(names)[:5]) or "none"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
