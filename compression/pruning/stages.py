"""Runs a model in stages, over all samples, so that no stage computes again what lies before it.

Layers are fitted front to back, and each fit needs what the model makes of every sample up to
there. What later stages read is spooled to an unnamed file now and then, within a bound; between
two such places the few stages since the last one are run again.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from compression import bodies, runtime
from compression.calibration import taps

Arrays = dict[str, NDArray[Any]]
EVERY = 4
"""Stages from one spool to the next: what is written wears a flash disk."""
MOST_BYTES = 768 * 2**20
"""On disk, for one model."""


def depths(model: onnx.ModelProto, ends: Iterable[str]) -> list[int]:
    """Return of each node how many of the tensors `ends` lie one after the other before it."""
    wanted, depth, found = set(ends), dict[str, int](), []
    for node in model.graph.node:
        read = {*node.input, *bodies.captured(node)}
        before = max((depth.get(name, 0) for name in read), default=0)
        found.append(before)
        for name in node.output:
            depth[name] = before + (name in wanted)
    return found


class Spool:
    """Arrays of many samples by name, in an unnamed file."""

    def __init__(self) -> None:
        # Unnamed: a killed process leaves nothing behind.
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="stages-")  # noqa: SIM115 - closed by its owner
        self._at: list[list[tuple[str, str, tuple[int, ...], int]]] = []

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Append one sample."""
        placed = []
        for name, array in arrays.items():
            placed.append((name, array.dtype.str, array.shape, self._file.tell()))
            self._file.write(np.ascontiguousarray(array).data)
        self._at.append(placed)

    def sample(self, number: int) -> Arrays:
        """Read one sample."""
        found: Arrays = {}
        for name, dtype, shape, start in self._at[number]:
            self._file.seek(start)
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            found[name] = np.frombuffer(self._file.read(count), dtype).reshape(shape)
        return found

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


@dataclass(frozen=True)
class _Part:
    """Some nodes of a model in one session: what it reads of a spool, and what it makes."""

    session: Any
    reads: tuple[str, ...]


class Staged:
    """One model and how far it was run. `stage` is of each node the step at which it is ready."""

    def __init__(self, model: onnx.ModelProto, stage: Sequence[int], threads: int) -> None:
        self._model = model
        self._stage = list(stage)
        self._threads = threads
        self._given = {value.name for value in model.graph.input}
        self._spool: Spool | None = None
        self._done = -1

    def values(
        self,
        upto: int,
        wanted: Sequence[str],
        samples: Iterable[tuple[int, Arrays]],
        *,
        count: int,
        last: bool,
    ) -> Iterator[tuple[int, Arrays]]:
        """Run all samples up to a stage; yield the number and the `wanted` tensors of each.

        The weights of all layers up to there must be final. There are `count` samples; `last` says
        that nobody asks about this stage again.

        Raises:
            BadModel: it does not run.
        """
        made = [name for name in dict.fromkeys(wanted) if name not in self._given]
        far = last and upto - self._done >= EVERY
        later = self._read_after(upto) if far else []
        spool: Spool | None = None
        part: _Part | None = None
        room = MOST_BYTES
        for number, sample in samples:
            held = {} if self._spool is None else self._spool.sample(number)
            if part is None:
                part = self._part(upto, [*dict.fromkeys([*made, *later])], held)
                spool = Spool() if later else None
            feeds = {name: (sample | held)[name] for name in part.reads}
            found = runtime.run(part.session, feeds) if part.session is not None else {}
            known = held | found
            if spool is not None:
                kept = {name: known[name] for name in later}
                size = sum(array.nbytes for array in kept.values())
                room -= size
                if room < 0 or (number == 0 and size * count > MOST_BYTES):
                    spool.close()
                    spool = None
                else:
                    spool.add(kept)
            yield number, sample | {name: known[name] for name in made}
        if spool is not None:
            self.close()
            self._spool, self._done = spool, upto

    def close(self) -> None:
        """Give back what lies on disk."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _read_after(self, upto: int) -> list[str]:
        """What stages after `upto` read of those before, and what leaves the graph."""
        made: dict[str, None] = {}
        read: set[str] = set()
        for node, stage in zip(self._model.graph.node, self._stage, strict=True):
            if stage <= upto:
                made |= dict.fromkeys(name for name in node.output if name)
            else:
                read |= {*node.input, *bodies.captured(node)}
        return [name for name in made if name in read]

    def _part(self, upto: int, outputs: list[str], held: Arrays) -> _Part:
        """The nodes since the last spool that `outputs` need."""
        graph = self._model.graph
        pairs = list(zip(graph.node, self._stage, strict=True))
        nodes = [node for node, stage in pairs if self._done < stage <= upto]
        made = {name for node in nodes for name in node.output}
        rest = [name for name in outputs if name in made]
        if not rest:
            return _Part(None, ())
        part = onnx.ModelProto()
        part.ir_version = self._model.ir_version
        part.opset_import.extend(self._model.opset_import)
        part.functions.extend(self._model.functions)
        part.graph.name = graph.name
        part.graph.input.extend(graph.input)
        part.graph.input.extend(
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in held.items()
        )
        part.graph.node.extend(nodes)
        part.graph.initializer.extend(graph.initializer)
        tapped = taps.outputs(part, rest)
        read = {
            name for node in tapped.graph.node for name in {*node.input, *bodies.captured(node)}
        }
        inputs = [value for value in tapped.graph.input if value.name in read]
        del tapped.graph.input[:]
        tapped.graph.input.extend(inputs)
        names = tuple(value.name for value in inputs)
        return _Part(taps.session(tapped, threads=self._threads), names)
