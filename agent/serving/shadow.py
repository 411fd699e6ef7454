"""Runs live requests on a reference too: `python -P -m agent.serving.shadow`, at idle priority.

A ShadowJob as one JSON line on its input; Compared as JSON lines on its output, whenever there is
something new, until the input ends. What the reference cannot answer is nobody's fault.
"""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.errors import Corrupt, TrimtabError
from agent.protocol.capturing import SUFFIX, Compared, ShadowJob
from agent.protocol.tensors import Array
from agent.serving import runtime, sampled
from agent.serving.sealing import Seal
from compression import agreement, child
from compression.errors import BadInputs
from compression.job import OutputSpec

_LOOK_S = 0.1


class Shadow:
    """A reference, and how the answers so far compare with its own."""

    def __init__(self, job: ShadowJob) -> None:
        """Load the reference.

        Raises:
            BadInput, Corrupt, Unavailable: as agent.serving.runtime.load.
        """
        self._folder = Path(job.folder)
        self._seal = Seal(Path(job.key_file)) if job.key_file else None
        self._model = runtime.load(Path(job.model_path), sha256=job.sha256, runtime=job.runtime)
        names = self._model.output_names
        self._specs: Sequence[OutputSpec] = job.outputs or [OutputSpec(name=n) for n in names]
        self._judges: dict[frozenset[str], agreement.Judge] = {}
        self.so_far = Compared()

    def look(self) -> bool:
        """Take what waits in the folder; whether there was anything."""
        waiting = sorted(self._folder.glob(f"*{SUFFIX}"))
        for path in waiting:
            try:
                request = sampled.read(path, self._seal)
                path.unlink(missing_ok=True)
                self._compare(request)
            except (TrimtabError, BadInputs, OSError):
                self._count(skipped=1)
                path.unlink(missing_ok=True)
        return bool(waiting)

    def _compare(self, request: sampled.Request) -> None:
        self._model.check(request.inputs)
        wanted = self._model.run(request.inputs, self._model.output_names)
        original = dict(zip(self._model.output_names, wanted, strict=True))
        failed = request.outputs is None
        # An answer of another shape never agrees.
        nothing = {name: np.zeros((0,) * 9, array.dtype) for name, array in original.items()}
        judge = self._judge(original, nothing if request.outputs is None else request.outputs)
        self._count(compared=1, failed=int(failed))
        self.so_far = self.so_far.model_copy(update={"agreement": judge.agreement("live")})

    def _judge(self, original: dict[str, Array], answered: dict[str, Array]) -> agreement.Judge:
        """Judge by the outputs that were asked for; by those of most requests, if they differ."""
        asked = frozenset(answered)
        specs = [spec for spec in self._specs if spec.name in asked]
        if not specs:
            raise Corrupt("cannot compare: no output that has a meaning was asked for")
        judge = self._judges.setdefault(asked, agreement.Judge(specs))
        judge.add(original, answered)
        return max(self._judges.values(), key=lambda each: each.samples)

    def _count(self, **more: int) -> None:
        now = {name: getattr(self.so_far, name) + count for name, count in more.items()}
        self.so_far = self.so_far.model_copy(update=now)


def main() -> int:
    """Do the job that stdin gives, until it ends."""
    out = child.clean_stdout()
    job = ShadowJob.model_validate_json(child.read_line())
    child.Parent()
    try:
        shadow = Shadow(job)
    except TrimtabError as error:
        out.write(Compared(cannot=str(error)).to_json().decode() + "\n")
        return 1
    pause = threading.Event()
    while True:
        if shadow.look():
            out.write(shadow.so_far.to_json().decode() + "\n")
        else:
            pause.wait(_LOOK_S)


if __name__ == "__main__":
    sys.exit(main())
