"""Shapes and recipes as a person gives them, and what cannot be one."""

import json
from pathlib import Path

import pytest

from agent import outputs
from agent.commandline import recipes, shapes
from agent.errors import BadInput
from compression.job import OutputSpec, PassSpec, Recipe

STATIC = Recipe(label="static", passes=(PassSpec(name="quantization"),))


def test_shapes_are_read_with_their_names() -> None:
    (a, b) = shapes.read(usual=["a=1x3x48x320"], largest=["a=1x3x48x1200", "x=y:0=7"])
    assert (a.name, a.reference_shape, a.largest_shape) == ("a", (1, 3, 48, 320), (1, 3, 48, 1200))
    assert (b.name, b.reference_shape, b.largest_shape) == ("x=y:0", None, (7,))
    assert a.shape == (-1, -1, -1, -1)


@pytest.mark.parametrize(
    ("usual", "largest", "why"),
    [
        (["a"], [], "write NAME=DIMxDIM"),
        (["a=1x-3"], [], "write NAME=DIMxDIM"),
        (["a=1x0"], [], "write NAME=DIMxDIM"),
        (["=1"], [], "write NAME=DIMxDIM"),
        (["a=1", "a=2"], [], "given twice"),
        (["a=1x2"], ["a=1x2x3"], "2 ranks"),
    ],
)
def test_what_is_no_shape_is_refused(usual: list[str], largest: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        shapes.read(usual=usual, largest=largest)


def test_recipes_are_one_or_several_or_those_of_a_ladder(tmp_path: Path) -> None:
    other = STATIC.model_copy(update={"label": "other"})
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_bytes(STATIC.to_json())
    two.write_text(json.dumps([STATIC.model_dump(), other.model_dump()]))
    assert recipes.read([one]) == (STATIC,)
    assert recipes.read([one, two]) == (STATIC, STATIC, other)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot read recipes"),
        (b"\xff\xfe", "cannot read recipes"),
        (b'{"label": "a", "pass": []}', "unknown field 'pass'"),
        (b'{"label": "a"}', "it has no passes"),
        (b"[]", "it holds no recipe"),
        (b'{"rungs": 3}', "cannot read recipes"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=why):
        recipes.read([path])


def test_a_missing_file_of_recipes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        recipes.read([tmp_path / "none.json"])


def test_outputs_may_be_json_or_a_file_of_it(tmp_path: Path) -> None:
    spec = OutputSpec(name="y", kind="steps", blank=0)
    path = tmp_path / "outputs.json"
    path.write_text(f"[{spec.to_json().decode()}]")
    assert outputs.read([spec.to_json().decode()]) == (spec,)
    assert outputs.read([str(path)]) == (spec,)
    assert outputs.read([str(path), "z=logits"])[1].name == "z"


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (['{"name": "y", "kind": "sound"}'], "kind"),
        (['{"name": "y", "colour": 1}'], "unknown field '0.colour'"),
        (["[1, 2"], "cannot read output"),
        (["y=logits", "y=score"], "'y' is given twice"),
    ],
)
def test_outputs_that_cannot_be_are_refused(texts: list[str], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        outputs.read(texts)
