"""Makes one .npz of collected requests: `python -P -m agent.serving.gather`, at idle priority.

A GatherJob as one JSON line on its input, a Gathered as one JSON line on its output. One request
is in memory at a time.
"""

import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from agent.errors import Corrupt
from agent.protocol.capturing import SUFFIX, Gathered, GatherJob
from agent.protocol.tensors import Array
from agent.serving import sampled
from agent.serving.sealing import Seal
from compression import child, columns

_AGES_AGO = (1980, 1, 1, 0, 0, 0)
"""The time in each entry: the same requests make the same file."""


def gather(job: GatherJob) -> Gathered:
    """Write every whole request of the folder to `job.out`; request k under `NAME::k`."""
    seal = Seal(Path(job.key_file)) if job.key_file else None
    count = damaged = 0
    beside = Path(job.out + ".partial")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w+b") as file, zipfile.ZipFile(file, "w") as archive:
        for path in sorted(Path(job.folder).glob(f"*{SUFFIX}")):
            try:
                inputs = _fitting(sampled.read(path, seal).inputs, job)
            except (Corrupt, OSError):
                damaged += 1
                continue
            for name, array in inputs.items():
                entry = zipfile.ZipInfo(f"{name}::{count:04d}.npy", _AGES_AGO)
                with archive.open(entry, "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, array, allow_pickle=False)
            count += 1
    beside.replace(job.out)
    return Gathered(samples=count, damaged=damaged)


def _fitting(inputs: dict[str, Array], job: GatherJob) -> dict[str, Array]:
    """The inputs that the model takes.

    Raises:
        Corrupt: one is missing, or is not what the model takes.
    """
    found = {}
    for spec in job.inputs:
        array = inputs.get(spec.name)
        fits = array is not None and columns.fits(array.shape, spec.shape)
        if array is None or not fits or array.dtype.name != spec.dtype:
            raise Corrupt(f"cannot use a request: input '{spec.name}' does not fit")
        found[spec.name] = array
    return found


def main() -> int:
    """Do the job that stdin gives."""
    out = child.clean_stdout()
    done = gather(GatherJob.model_validate_json(child.read_line()))
    out.write(done.to_json().decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
