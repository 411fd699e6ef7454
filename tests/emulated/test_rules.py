"""What the rules propose to each class of processor keeps to the formats that are exact there."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from compression import graph, pipeline, statistics
from compression.calibration.evidence import Evidence
from compression.choosing import search
from compression.job import DeviceClass, PassSpec, Recipe
from tests.compression.test_recurrent import recurrence
from tests.emulated import proposals, variants
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
    weighted=st.fixed_dictionaries(dict.fromkeys(proposals.KINDS, counts)),
    elementwise=counts,
    looked_up=counts,
    outlying=st.sampled_from([(), ("a",), ("a", "b")]),
)
each = pytest.mark.parametrize("name", CLASSES)


@each
@given(facts=facts)
def test_full_range_is_never_proposed_where_products_saturate(
    name: str, facts: search.Facts
) -> None:
    weights = {weights for _, _, weights in proposals.proposed(CLASSES[name], facts)}
    assert not (CLASSES[name].int8_saturates and "s8" in weights)


@each
@given(facts=facts)
def test_seven_bits_are_only_proposed_where_eight_would_saturate(
    name: str, facts: search.Facts
) -> None:
    weights = {weights for _, _, weights in proposals.proposed(CLASSES[name], facts)}
    assert CLASSES[name].int8_saturates or "s8-7bit" not in weights


REFINED = Recipe(
    label="s8 x s8, reconstructed",
    passes=(
        PassSpec(name="quantization", parameters={"weights": "s8", "activations": "s8"}),
        PassSpec(name="reconstruction"),
    ),
)


@pytest.mark.parametrize("recipe", [*variants.RECIPES, REFINED], ids=lambda one: one.label)
def test_no_weight_is_minus_128_which_older_arm_kernels_cannot_multiply(
    recipe: Recipe, tmp_path: Path
) -> None:
    recurrent = any(spec.name == "recurrent" for spec in recipe.passes)
    model = recurrence(states=False) if recurrent else onnx.load(models.cnn(tmp_path / "m.onnx"))
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

    return pipeline.run(recipe, model, calibrate=calibrate, evidence=Evidence(lambda: iter(feeds)))


@each
def test_static_recipes_have_the_formats_that_the_kernels_take(name: str) -> None:
    found = proposals.proposed(CLASSES[name])
    static = {(acts, weights) for kind, acts, weights in found if kind == "quantization"}
    assert (
        static
        == {
            "AVX2": {("u8", "s8-7bit"), ("u8", "u8")},
            "AVX512-VNNI": {("u8", "s8")},
            "Cortex-A72": {("s8", "s8")},
            "Cortex-A76": {("s8", "s8")},
        }[name]
    )


def test_what_computes_in_float_without_a_dot_product_is_only_proposed_with_one() -> None:
    kinds = {name: {kind for kind, _, _ in proposals.proposed(CLASSES[name])} for name in CLASSES}
    assert {name for name in CLASSES if "blocks" in kinds[name]} == {
        name for name, device in CLASSES.items() if device.int8_dot
    }
