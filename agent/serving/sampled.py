"""One request on disk: its inputs, and what was answered; sealed where a key is given."""

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.errors import Corrupt
from agent.protocol.tensors import Array
from agent.serving.sealing import Seal

_IN, _OUT = "in::", "out::"


class Request(NamedTuple):
    """Arrays by name; `outputs` is None where the model could not answer, or nobody kept them."""

    inputs: dict[str, Array]
    outputs: dict[str, Array] | None


def write(
    path: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array], seal: Seal | None
) -> int:
    """Write one request in the place of what is there; its bytes on the disk.

    A power cut may leave it damaged: it is one of many, and not worth a sync.

    Raises:
        OSError: the disk is full or failing; what was there is as it was.
    """
    arrays = {_IN + name: array for name, array in inputs.items()}
    arrays |= {_OUT + name: array for name, array in outputs.items()}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    data = buffer.getvalue() if seal is None else seal.seal(buffer.getvalue(), name=path.name)
    beside = path.with_name(path.name + ".partial")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    beside.replace(path)
    return len(data)


def read(path: Path, seal: Seal | None) -> Request:
    """Read one request.

    Raises:
        Corrupt: it is damaged, or sealed with another key.
        OSError: it is gone.
    """
    data = path.read_bytes()
    if seal is not None:
        data = seal.open(data, name=path.name)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise Corrupt(f"cannot read {path.name}: {error}") from error
    inputs = {name.removeprefix(_IN): a for name, a in arrays.items() if name.startswith(_IN)}
    outputs = {name.removeprefix(_OUT): a for name, a in arrays.items() if name.startswith(_OUT)}
    return Request(inputs, outputs or None)
