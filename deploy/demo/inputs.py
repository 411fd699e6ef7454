"""Makes the two disjoint sets of the demo: a few to calibrate with, many others to judge by."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import Unavailable
from deploy.demo import features, files
from deploy.demo.assets import Assets

SEED = 7
PER_EXTENSION = 36
CALIBRATION = 240
LEAST_EVALUATION = 100


@dataclass(frozen=True)
class Sets:
    """Rows are files. `calibration` int32 [C, 2048] and `evaluation` int32 [E, 2048]: no row
    is in both. `extensions` names the extension of each evaluation row."""

    calibration: features.Tokens
    evaluation: features.Tokens
    extensions: tuple[str, ...]


def from_this_machine(assets: Assets, *, evaluation: int = 480, seed: int = SEED) -> Sets:
    """Read real files whose extension the model's vocabulary knows.

    Raises:
        Unavailable: the machine has too few of them to say anything.
    """
    picked = files.pick(
        files.roots(),
        extensions=assets.by_extension,
        per_extension=PER_EXTENSION,
        seed=seed,
    )
    return split(distinct(picked), calibration=CALIBRATION, evaluation=evaluation)


def distinct(picked: Iterable[files.Picked]) -> list[tuple[features.Tokens, str]]:
    """Tokens and extension of each file that the model has to decide; equal contents once."""
    rows: dict[bytes, tuple[features.Tokens, str]] = {}
    for item in picked:
        tokens = features.read(item.path)
        if tokens is not None:
            rows.setdefault(tokens.tobytes(), (tokens, item.extension))
    return list(rows.values())


def split(
    rows: Sequence[tuple[features.Tokens, str]], *, calibration: int, evaluation: int
) -> Sets:
    """The first rows calibrate (a third of them at most), the following ones evaluate.

    Raises:
        Unavailable: fewer than 100 rows would be left to evaluate, or than were asked for.
    """
    border = min(calibration, len(rows) // 3)
    last = border + evaluation
    left = rows[border:last]
    if len(left) < min(LEAST_EVALUATION, evaluation):
        raise Unavailable(
            f"cannot run the demo on this machine's files: {len(rows)} of known kinds were "
            f"found, {border + min(LEAST_EVALUATION, evaluation)} are needed"
        )
    return Sets(
        calibration=np.stack([tokens for tokens, _ in rows[:border]]),
        evaluation=np.stack([tokens for tokens, _ in left]),
        extensions=tuple(extension for _, extension in left),
    )


def write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> Path:
    """Write inputs as an .npz: one array per model input, samples on the leading axis."""
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]  # names are not keywords
    return path
