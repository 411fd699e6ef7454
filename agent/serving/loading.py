"""Makes a model ready to serve: load, warm, probe. Runs on the loader's thread."""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.errors import BadInput
from agent.protocol.private import LoadRequest
from agent.protocol.tensors import Array
from agent.serving import probe, runtime, vitals
from agent.serving.pace import Pace
from agent.serving.runs import Place
from agent.serving.runtime import CannotRun, Model

_AGAIN_BELOW_S = 0.25
"""The first run allocates; a second one tells how long a run takes, where it is affordable."""


class Ready(NamedTuple):
    """A model that may be switched to; `held_mib` is what it added to this process's memory."""

    request: LoadRequest
    place: Place
    model: Model
    load_ms: float
    warm_ms: float
    pace: Pace
    probe_sqnr_db: float | None
    held_mib: float


def prepare(request: LoadRequest, place: Place) -> Ready:
    """Load, warm and probe; the crash page says so meanwhile.

    Raises:
        BadInput, Corrupt, Unavailable: as agent.serving.runtime.load.
        Refused: the model answers its probe wrongly.
    """
    place.page[place.lane] = request.index
    before_mib = vitals.rss_mib()
    try:
        began = time.perf_counter()
        model = runtime.load(Path(request.path), sha256=request.sha256, runtime=request.runtime)
        loaded = time.perf_counter()
        try:
            pace = _warm(model, request)
            warmed = time.perf_counter()
            sqnr_db = probe.compare(model, Path(request.probe_path)) if request.probe_path else None
        except BaseException:
            model.close()  # the error's traceback would keep it alive
            raise
    finally:
        place.page[place.lane] = 0
    return Ready(
        request=request,
        place=place,
        model=model,
        load_ms=(loaded - began) * 1e3,
        warm_ms=(warmed - loaded) * 1e3,
        pace=pace,
        probe_sqnr_db=sqnr_db,
        held_mib=max(0.0, vitals.rss_mib() - before_mib),
    )


def _warm(model: Model, request: LoadRequest) -> Pace:
    """Run on zeros, and tell what a warm run takes."""
    inputs = _zeros(model, request)
    size = sum(array.nbytes for array in inputs.values())
    try:
        for _ in range(2):
            began, cpu_began = time.perf_counter(), time.thread_time()
            model.run(inputs, model.output_names)
            cpu_s = time.thread_time() - cpu_began
            if time.perf_counter() - began > _AGAIN_BELOW_S:
                break
    except (BadInput, CannotRun):
        # Zeros of a guessed shape may be nothing that this model can run on; inputs will tell.
        return Pace()
    return Pace(cpu_s, size)


def _zeros(model: Model, request: LoadRequest) -> dict[str, Array]:
    reference = {spec.name: spec.reference_shape for spec in request.inputs}
    zeros: dict[str, Array] = {}
    for name, dtype, shape in model.inputs:
        usual = reference.get(name) or tuple(1 if dim == -1 else dim for dim in shape)
        zeros[name] = np.full(usual, "", object) if dtype.kind == "O" else np.zeros(usual, dtype)
    return zeros
