"""What the rules propose to each class of processor keeps to the formats that are exact there."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from compression import graph, pipeline, statistics
from compression.choosing import search
from compression.errors import BadModel
from compression.job import DeviceClass, Recipe
from tests.emulated import variants
from tests.simulators import models
from tests.simulators.models import Arrays

CLASSES = {
    "AVX2": DeviceClass(machine="x86_64", isa=("avx2",), cores=2, onnxruntime="1"),
    "AVX512-VNNI": DeviceClass(
        machine="x86_64", isa=("avx2", "avx512f", "avx512_vnni"), cores=2, onnxruntime="1"
    ),
    "Cortex-A72": DeviceClass(machine="aarch64", isa=("asimd",), cores=4, onnxruntime="1"),
    "Cortex-A76": DeviceClass(
        machine="aarch64", isa=("asimd", "asimddp"), cores=4, onnxruntime="1"
    ),
}
counts = st.integers(0, 3)
facts = st.builds(
    search.Facts,
    weighted=st.fixed_dictionaries(dict.fromkeys(("Conv", "Gemm", "MatMul", "LSTM"), counts)),
    elementwise=counts,
    looked_up=counts,
    outlying=st.sampled_from([(), ("a",), ("a", "b")]),
)
each = pytest.mark.parametrize("name", CLASSES)


def formats(recipe: Recipe) -> set[tuple[str, str]]:
    """Activations and weights of the passes that multiply in 8 bits; "found" while it runs."""
    return {
        (str(spec.parameters.get("activations", "found")), str(spec.parameters["weights"]))
        for spec in recipe.passes
        if "weights" in spec.parameters
    }


@each
@given(facts=facts)
def test_full_range_is_never_proposed_where_products_saturate(
    name: str, facts: search.Facts
) -> None:
    device = CLASSES[name]
    proposed = {one for recipe in search.candidates(facts, device) for one in formats(recipe)}
    saturating = {one for one in proposed if one[1] == "s8"}
    assert not (saturating and device.int8_saturates)


@each
@given(facts=facts)
def test_seven_bits_are_only_proposed_where_eight_would_saturate(
    name: str, facts: search.Facts
) -> None:
    device = CLASSES[name]
    proposed = {one for recipe in search.candidates(facts, device) for one in formats(recipe)}
    assert device.int8_saturates or "s8-7bit" not in {weights for _, weights in proposed}


@pytest.mark.parametrize("recipe", variants.RECIPES, ids=lambda one: one.label)
def test_no_weight_is_minus_128_which_older_arm_kernels_cannot_multiply(
    recipe: Recipe, tmp_path: Path
) -> None:
    model = onnx.load(models.cnn(tmp_path / "m.onnx"))
    for tensor in model.graph.initializer:  # as low as it goes, and hardly as high
        values = numpy_helper.to_array(tensor).copy()
        if values.ndim > 1:
            values.flat[0] = -2 * np.abs(values).max()
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "low.onnx"
    onnx.save(model, path)
    rows = models.sample_inputs(path, 8)
    feeds = [{name: array[at : at + 1] for name, array in rows.items()} for at in range(8)]
    changed = made(recipe, graph.regular(path, sample=feeds[0]), feeds)
    readers = {name: node.op_type for node in changed.graph.node for name in node.input}
    weights = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in changed.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and readers[tensor.name] != "Gather"
    }
    assert all(values.min(initial=0) >= -127 for values in weights.values() if values.ndim > 1)


def made(recipe: Recipe, model: onnx.ModelProto, feeds: list[Arrays]) -> onnx.ModelProto:
    def calibrate(
        one: onnx.ModelProto, *, least_error: tuple[str, ...] = ()
    ) -> dict[str, statistics.Range]:
        return statistics.ranges(one, feeds, count=len(feeds))

    try:
        return pipeline.run(recipe, model, calibrate=calibrate)
    except BadModel as error:
        pytest.skip(str(error))


def test_the_four_classes_get_the_formats_that_their_kernels_take() -> None:
    everything = search.Facts(
        weighted=dict.fromkeys(("Conv", "Gemm", "MatMul", "LSTM"), 1), elementwise=1, looked_up=1
    )
    first = {
        name: {one for recipe in search.candidates(everything, device) for one in formats(recipe)}
        for name, device in CLASSES.items()
    }
    assert first["AVX2"] == {("u8", "s8-7bit"), ("u8", "u8"), ("found", "s8-7bit")}
    assert first["AVX512-VNNI"] == {("u8", "s8"), ("found", "s8")}
    assert first["Cortex-A72"] == first["Cortex-A76"] == {("s8", "s8"), ("found", "s8")}
