"""A file that is optimized already: the same answers, in less memory, and nothing behind it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compression import pipeline, runtime
from compression.errors import BadModel
from compression.job import MemoryJob, MemoryPeaks, PassSpec, Recipe, Runtime
from compression.passes import naming, prepared
from tests.compression import parent, variants
from tests.simulators import models

LOADED = runtime.options(Runtime(optimization="disabled"))


@pytest.mark.parametrize("make", [models.mlp, models.cnn], ids=["mlp", "cnn"])
def test_it_answers_to_the_bit_as_before(make, tmp_path: Path) -> None:
    path = make(tmp_path / "m.onnx")
    ready = naming.shorten(prepared.apply(onnx.load(path)))
    first, second = runtime.session(path), runtime.session(ready, LOADED)
    for feeds in variants.feeds_of(path, 3):
        wanted, found = runtime.run(first, feeds), runtime.run(second, feeds)
        assert wanted.keys() == found.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


def test_it_takes_less_memory_to_load(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx", hidden=2048)
    np.savez(tmp_path / "x.npz", **models.sample_inputs(path, 2))
    ready = tmp_path / "ready.onnx"
    onnx.save(prepared.apply(onnx.load(path)), ready)

    def peak(model: Path, how: Runtime) -> float:
        job = MemoryJob(model_path=str(model), inputs_path=str(tmp_path / "x.npz"), ways=(how,))
        found = parent.see_memory(job)
        assert isinstance(found, MemoryPeaks), found
        assert found.peaks_mib[0] is not None
        return found.peaks_mib[0]

    plain = peak(path, Runtime())
    assert peak(ready, Runtime(optimization="disabled")) < plain - 0.5 * path.stat().st_size / 2**20


def test_a_way_that_does_not_run_has_no_peak(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    path = models.mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", **models.sample_inputs(path, 2))
    ways = (Runtime(), Runtime(pattern=False))
    job = MemoryJob(model_path=str(broken), inputs_path=str(tmp_path / "x.npz"), ways=ways)
    assert parent.see_memory(job) == MemoryPeaks(peaks_mib=(None, None))
    found = parent.see_memory(job.model_copy(update={"model_path": str(path)}))
    assert isinstance(found, MemoryPeaks)
    assert all(peak is not None and peak > 0 for peak in found.peaks_mib)


def test_nothing_comes_behind_it(tmp_path: Path) -> None:
    model = onnx.load(models.mlp(tmp_path / "m.onnx"))
    passes = (PassSpec(name="prepared"), PassSpec(name="stored"))
    with pytest.raises(BadModel, match="cannot run a pass behind 'prepared'"):
        pipeline.run(Recipe(label="l", passes=passes), model, calibrate=lambda *_, **__: {})
