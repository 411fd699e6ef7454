"""One loaded model in onnxruntime: load, check inputs, run (its only importer in the agent)."""

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort

from agent.errors import BadInput, Corrupt, TrimtabError, Unavailable
from agent.protocol.tensors import Array
from agent.serving import specs
from agent.serving.bound import Bound
from compression.errors import BadModel
from compression.job import Runtime
from compression.packed import reading

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


class Model:
    """A session and what it takes and gives."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.inputs = tuple(specs.spec(each, "input") for each in session.get_inputs())
        self.outputs = tuple(specs.spec(each, "output") for each in session.get_outputs())
        self.output_names = tuple(spec.name for spec in self.outputs)

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Check names, datatypes and shapes against the model's inputs.

        Raises:
            BadInput: naming the input, and what is wrong with it.
        """
        specs.check(self.inputs, inputs)

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


def told(error: Exception) -> TrimtabError:
    """What an error of onnxruntime's means here: BadInput or CannotRun."""
    if isinstance(error, _CALLERS_FAULT):
        return BadInput(f"cannot run on these inputs: {_line(error)}")
    return CannotRun(f"cannot run the model: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
