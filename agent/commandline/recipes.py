"""Recipes from files: one, a list of them, or those of a ladder."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.errors import BadInput
from compression.findings import Ladder
from compression.job import Recipe
from compression.words import explain

_RECIPES: TypeAdapter[tuple[Recipe, ...]] = TypeAdapter(tuple[Recipe, ...])


def read(paths: Sequence[Path]) -> tuple[Recipe, ...]:
    """The recipes of files, in order; of a ladder those of its rungs but the original.

    Raises:
        BadInput: a file that cannot be read or holds something else, or a recipe without passes.
    """
    found = tuple(recipe for path in paths for recipe in _file(path))
    if empty := [recipe.label for recipe in found if not recipe.passes]:
        raise BadInput(f"cannot use recipe {empty[0]!r}: it has no passes")
    if paths and not found:
        raise BadInput(f"cannot use {paths[0]}: it holds no recipe")
    return found


def _file(path: Path) -> tuple[Recipe, ...]:
    try:
        content = path.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    try:
        if content[:1] == b"[":
            return _RECIPES.validate_json(content)
        if b'"rungs"' in content:
            rungs = Ladder.model_validate_json(content).rungs
            return tuple(rung.recipe for rung in rungs if rung.recipe.passes)
        return (Recipe.model_validate_json(content),)
    except ValidationError as error:
        raise BadInput(f"cannot read recipes in {path}: {explain(error)}") from error
