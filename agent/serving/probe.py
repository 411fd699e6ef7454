"""Checks a freshly loaded model against the answers that were written when it was measured."""

from pathlib import Path

from agent.errors import BadInput, Refused
from agent.serving.runtime import Model
from compression import agreement, samples
from compression.errors import CompressionError
from compression.job import InputSpec

LEAST_SQNR_DB = 40.0
"""Same file, device and runtime: only the order of sums may differ, which costs far less."""
_MOST_BYTES = 256 * 1024 * 1024


def compare(model: Model, path: Path) -> float:
    """Run the inputs of a probe; the least SQNR in dB over samples and outputs (200: equal).

    `path` is an .npz as in compression/samples.py, with the outputs to expect.

    Raises:
        Refused: the model answers otherwise than it did when it was measured.
        BadInput: the probe cannot be read, or does not fit the model.
    """
    specs = [
        InputSpec(name=name, dtype=dtype.name, shape=shape) for name, dtype, shape in model.inputs
    ]
    try:
        with samples.open_samples(path, specs, most_bytes=_MOST_BYTES) as probe:
            least = min(_sample(model, probe, index) for index in range(len(probe)))
    except CompressionError as error:
        raise BadInput(f"cannot probe the model: {error}") from error
    if least < LEAST_SQNR_DB:
        raise Refused(
            f"cannot switch to the new model: it answers its probe at {least:.1f} dB, "
            f"at least {LEAST_SQNR_DB:.0f} dB are needed"
        )
    return least


def _sample(model: Model, probe: samples.Samples, index: int) -> float:
    inputs, expected = probe.sample(index), probe.expected(index)
    if unknown := sorted(set(expected) - set(model.output_names)):
        raise BadInput(f"cannot probe the model: it has no output '{unknown[0]}'")
    model.check(inputs)
    got = model.run(inputs, tuple(expected))
    least = agreement.EXACT_DB
    for (name, want), have in zip(expected.items(), got, strict=True):
        if want.size != have.size:
            raise BadInput(f"cannot probe output '{name}': {have.size} values, not {want.size}")
        signal, error = agreement.powers(want.reshape(have.shape), have)
        least = min(least, agreement.sqnr_db(signal, error))
    return least
