"""The rules of choosing: candidates from facts, refinements from looks, the front, the verdicts."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.choosing import front, refining, search, verdict
from compression.choosing.preview import Preview
from compression.findings import Agreement
from compression.job import Budget, DeviceClass, PassSpec, Recipe
from tests.compression.test_ladder import DEVICE, measured
from tests.simulators import models


def look(
    value: float = 1.0,
    *,
    low: float = 0.95,
    high: float = 1.0,
    mib: float = 1.0,
    db: float = 30,
    cpu: float = 0.5,
    label: str = "look",
) -> Preview:
    agreement = Agreement(
        value=value, low=min(low, value), high=high, kind="logits", output="y", samples=30,
        split="choosing",
    )  # fmt: skip
    return Preview(
        recipe=Recipe(label=label), key=label, path=Path("x"), size_bytes=int(mib * 2**20),
        agreement=agreement, sqnr_db=db, cpu_ratio=cpu,
    )  # fmt: skip


FAILED = Preview(recipe=Recipe(label="l"), key="k", path=Path("x"), problem="cannot load it")


@pytest.mark.parametrize(
    ("preview", "reason"),
    [
        (look(0.99), None),
        (look(0.155, high=0.33), "agreement 0.155 (logits, at most 0.330"),
        (look(0.99, mib=6, cpu=1.1), "neither smaller nor faster than the original: 6.00 of 4.80"),
        (look(0.99, mib=4.8, cpu=0.7), None),
        (look(0.99, mib=1.2, cpu=1.5), None),
        (FAILED, "cannot load it"),
    ],
)
def test_what_needs_no_trial(preview: Preview, reason: str | None) -> None:
    found = verdict.before(preview, Budget(min_agreement=0.99), size_mib=4.8)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"value": 0.94}, "agreement 0.940 (logits, 100 held-out samples) below 0.980"),
        ({"value": 0.96}, None),  # a near miss shows what a lower demand would buy
        ({"latency_ratio": 1.04}, None),
        ({"latency_ratio": 1.2}, "slower than the original: wall ratio 1.20"),
        ({"latency_ratio": 0.99, "size_mib": 4.7}, "neither smaller nor faster"),
        ({"latency_ratio": 0.8, "size_mib": 4.9}, None),
    ],
)
def test_what_a_trial_decides(fields: dict, reason: str | None) -> None:
    found = verdict.after(measured(**fields), Budget(), original=measured(), cores=4)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("budget", "kept"),
    [(Budget(size_ratio=0.6), True), (Budget(size_ratio=1.0), False), (Budget(), False)],
)
def test_a_slower_one_is_kept_only_where_the_original_is_too_large(
    budget: Budget, kept: bool
) -> None:
    original = measured()
    same = original.model_copy(update={"size_mib": original.original_size_mib})
    slow = measured(latency_ratio=1.2)
    reason = verdict.after(slow, budget, original=same, cores=4)
    assert reason is None if kept else "slower" in str(reason)


def test_what_looks_beyond_the_budget_is_tried_last() -> None:
    looks = [
        look(label="large", mib=3), look(label="slow", cpu=0.9), look(0.8, low=0.7, label="far"),
        look(label="fits"), look(0.97, low=0.9, label="perhaps"),
    ]  # fmt: skip
    budget = Budget(size_mib=2, latency_ratio=0.6, min_agreement=0.98)
    first, rest = verdict.in_line(looks, [], budget, size_mib=4)
    assert [one.recipe.label for one in first] == ["fits", "perhaps", "large", "slow"]
    assert [one.recipe.label for one in rest] == ["far"]
    many = [look(label=f"fits {n}") for n in range(7)]
    first, rest = verdict.in_line([looks[0], *many], looks[1:2], budget, size_mib=4)
    assert [one.recipe.label for one in first] == [*(f"fits {n}" for n in range(6)), "large"]
    assert [one.recipe.label for one in rest] == ["fits 6", "slow"]


def test_where_nothing_fits_what_is_over_by_least_is_tried_first() -> None:
    looks = [
        look(mib=2, cpu=0.9, label="slow"), look(mib=4, cpu=0.5, label="large"),
        look(0.5, mib=1.1, cpu=0.3, label="far"), look(mib=1.5, cpu=0.6, label="near"),
    ]  # fmt: skip
    budget = Budget(size_mib=1, min_agreement=0.98)
    first, rest = verdict.in_line(looks, [], budget, size_mib=5)
    assert [one.recipe.label for one in first] == ["near", "slow"]
    assert [one.recipe.label for one in rest] == ["large", "far"]
    both = budget.model_copy(update={"latency_ratio": 0.2})
    first, rest = verdict.in_line(looks, [], both, size_mib=5, ratio=0.2)
    assert [one.recipe.label for one in first] == ["near", "large"]  # over by 3 and by 4
    # Where something fits, what does not keeps the order of the front.
    first, _ = verdict.in_line([look(mib=0.9, label="fits"), *looks], [], budget, size_mib=5)
    assert [one.recipe.label for one in first] == ["fits", "slow", "large"]


def test_of_what_fits_the_best_compromise_is_tried_first() -> None:
    looks = [
        look(0.965, low=0.95, mib=0.5, cpu=0.4, label="quick, but too far"),
        look(mib=10, cpu=0.73, db=100, label="exact and large"),
        look(0.99, mib=3, cpu=0.7, label="close and small"),
    ]
    first, _ = verdict.in_line(looks, [], Budget(min_agreement=0.98), size_mib=11)
    labels = [one.recipe.label for one in first]
    assert labels == ["close and small", "exact and large", "quick, but too far"]


def labels(device: DeviceClass, **counts: int) -> list[str]:
    facts = search.Facts(weighted=counts, elementwise=3, looked_up=0, stored=bool(counts))
    return [recipe.label for recipe in search.candidates(facts, device)]


def static(device: DeviceClass) -> dict:
    facts = search.Facts(weighted={"Conv": 3}, elementwise=0, looked_up=0)
    found = [refining.static(recipe) for recipe in search.candidates(facts, device)]
    return next(spec.parameters for spec in found if spec)


def test_candidates_follow_the_instruction_sets() -> None:
    vnni = DEVICE.model_copy(update={"isa": ("avx2", "avx512_vnni")})
    arm = DEVICE.model_copy(update={"machine": "aarch64", "isa": ("asimddp",)})
    assert static(DEVICE) == {"weights": "s8-7bit", "activations": "u8"}
    assert static(vnni) == {"weights": "s8", "activations": "u8"}
    assert static(arm) == {"weights": "s8", "activations": "s8"}
    assert [search.dynamic_format(one) for one in (DEVICE, vnni, arm)] == ["u8", "s8", "u8"]
    assert "int8 u8 weights" in labels(DEVICE, Conv=3)
    assert "int8 u8 weights" not in labels(vnni, Conv=3)


def test_candidates_follow_the_operators() -> None:
    assert labels(DEVICE) == []
    assert "int8 weights" in labels(DEVICE, LSTM=2)
    assert "int8 dynamic" in labels(DEVICE, LSTM=2)
    assert "int8 per-channel" not in labels(DEVICE, LSTM=2)
    assert "int8 dynamic" not in labels(DEVICE, Conv=2)
    assert "int8 dynamic" in labels(DEVICE, MatMul=2)
    assert "int8 blocks of 32" not in labels(DEVICE, MatMul=2)  # slower without dot products
    vnni = DEVICE.model_copy(update={"isa": ("avx2", "avx512_vnni")})
    assert {"int8 blocks of 32", "int8 blocks of 128"} <= set(labels(vnni, MatMul=2))
    assert "int8 Conv, dynamic MatMul" in labels(DEVICE, MatMul=2, Conv=3)


def test_recurrent_layers_keep_their_kernel_behind_static_convolutions() -> None:
    facts = search.Facts({"Conv": 3, "LSTM": 1}, 0, 0)
    found = {one.label: one for one in search.candidates(facts, DEVICE)}
    names = [spec.name for spec in found["int8 per-channel"].passes]
    assert names == ["quantization", "recurrent", "stored"]
    assert found["int8 dynamic"].passes[0].parameters == {"weights": "u8"}


def test_products_get_seven_bits_too_where_that_is_the_quicker_kernel() -> None:
    facts = search.Facts({"Gemm": 1, "LSTM": 1}, 0, 0)
    found = {one.label: one.passes for one in search.candidates(facts, DEVICE)}
    formats = [spec.parameters.get("weights") for spec in found["int8 dynamic, 7 bits"]]
    assert formats == ["s8-7bit", "u8", None]
    assert "int8 dynamic, 7 bits" not in labels(DEVICE, LSTM=2)
    vnni = DEVICE.model_copy(update={"isa": ("avx2", "avx512_vnni")})
    assert "int8 dynamic, 7 bits" not in labels(vnni, MatMul=2)


def test_every_recipe_stores_what_is_left_in_8_bits() -> None:
    facts = search.Facts({"Conv": 3, "MatMul": 2, "LSTM": 1}, 3, 1, outlying=("c",))
    for recipe in search.candidates(facts, DEVICE):
        assert recipe.passes[-1].name == (
            "simplified" if recipe.label == "simplified" else "stored"
        )


def test_outlying_nodes_are_rescaled_and_unrolled_where_they_can_be() -> None:
    for unrollable, names in (((), ["rescaling"]), (("c",), ["rescaling", "unrolling"])):
        facts = search.Facts({"Conv": 1}, 0, 0, outlying=("c",), unrollable=unrollable)
        recipes = search.candidates(facts, DEVICE)
        passes = [[spec.name for spec in recipe.passes] for recipe in recipes]
        assert [*names, "quantization", "stored"] in passes


def recipe() -> Recipe:
    passes = (PassSpec(name="quantization", parameters={"weights": "s8"}), search.STORED)
    return Recipe(label="int8", passes=passes)


def test_ranges_are_drawn_in_step_by_step() -> None:
    found = refining.tightened(recipe())
    reaches = [one.passes[0].parameters["reach"] for one in found]
    assert reaches == [0.35, 0.1, 0.0]
    assert [one.passes[1:] for one in found] == [recipe().passes[1:]] * 3
    (last,) = refining.tightened(found[1])
    assert last.passes[0].parameters == {"weights": "s8", "reach": 0.0}
    assert refining.tightened(found[2]) == refining.tightened(Recipe(label="float")) == ()


def test_mixed_recipes_leave_the_worst_nodes_float() -> None:
    figures = {"a": 10.0, "b": 50.0, "c": 20.0, "d": 60.0, "e": 30.0}
    found = refining.mixed(recipe(), figures, floor_db=40)
    assert [one.passes[0].parameters["exclude"] for one in found] == [["a"], ["a", "c"]]
    assert [one.label for one in found] == ["int8, 1 node float", "int8, 2 nodes float"]
    again = refining.without(found[1], ["c", "b"], "b too")
    assert again.passes[0].parameters == {"weights": "s8", "exclude": ["a", "c", "b"]}
    assert again.passes[1] == search.STORED


def test_finishing_passes_stand_where_they_find_what_they_need() -> None:
    found = recipe()
    for label, spec in refining.finishers(saturates=True):
        found = refining.then(found, spec, label)
    assert [one.name for one in found.passes] == [
        "equalization", "quantization", "reconstruction", "correction", "stored",
    ]  # fmt: skip
    assert found.label == "int8, equalized, reconstructed, corrected"
    assert found.passes[2].parameters == {"pairs": True}


def test_constants_that_are_felt_get_16_bits_in_the_last_pass() -> None:
    found = refining.widened(recipe(), ["a", "b"])
    assert found.label == "int8, 2 constants in 16 bits"
    assert found.passes[-1].parameters == {"wide": ["a", "b"], "wide_share": 0.0}
    assert found.passes[0] == recipe().passes[0]


def test_nodes_are_sorted_into_islands_by_what_decides_about_their_kernels(tmp_path: Path) -> None:
    model = onnx.load(models.cnn(tmp_path / "m.onnx", width=32))
    outputs = [node.output[0] for node in model.graph.node if node.op_type in {"Conv", "Gemm"}]
    found = refining.islands(model, [*outputs, "nobody"])
    assert {kind: len(names) for kind, names in found.items()} == {
        "narrow wide Conv": 1, "depthwise Conv": 1, "1x1 Conv": 1, "wide Conv": 1, "Gemm": 1,
    }  # fmt: skip


def test_a_candidate_is_beaten_only_where_another_is_no_worse_in_all_and_better_in_one() -> None:
    plain = look()
    assert not front.beats(plain, look())
    assert front.beats(look(cpu=0.4), plain)
    assert front.beats(look(mib=0.8), plain)
    assert front.beats(look(db=40), plain)
    assert not front.beats(look(cpu=0.4, mib=1.2), plain)
    assert not front.beats(look(cpu=0.4, db=20), plain)
    assert not front.beats(look(0.6, low=0.5, cpu=0.4, db=40), plain)
    # One sample of thirty may differ by chance; then the signal to noise ratio decides.
    assert front.beats(look(0.97, low=0.85, db=40), look(1.0, low=0.9, db=30))


@given(
    st.lists(
        st.tuples(st.floats(0.5, 1.0), st.floats(0.1, 5.0), st.floats(0, 60), st.floats(0.2, 2.0)),
        max_size=12,
    )
)
def test_the_front_and_what_it_beats_are_all_of_them_once(figures: list[tuple]) -> None:
    looks = [
        look(value, low=value - 0.02, mib=mib, db=db, cpu=cpu, label=str(at))
        for at, (value, mib, db, cpu) in enumerate(figures)
    ]
    found = front.split(looks)
    names = [one.key for one in found.front] + [one.key for one, _ in found.behind]
    assert sorted(names, key=int) == [str(at) for at in range(len(looks))]
    assert bool(found.front) == bool(looks)
    assert all(front.beats(by, one) for one, by in found.behind)


def test_the_front_begins_with_the_best_compromise_the_closest_the_smallest_and_the_fastest() -> (
    None
):
    looks = [
        look(label="closest", db=60, mib=3, cpu=0.95), look(label="smallest", mib=0.8, cpu=0.9),
        look(label="fastest", mib=2, cpu=0.3, db=20), look(label="compromise", mib=0.9, cpu=0.5),
        look(0.7, low=0.6, label="too far", mib=0.7, cpu=0.31),
    ]  # fmt: skip
    found = [one.key for one in front.split(looks).front]
    assert found == ["compromise", "closest", "too far", "fastest", "smallest"]
