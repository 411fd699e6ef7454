"""Has the finished variant's file packed: the graph stays as it is, and is expanded on load.

A matter of the file, so that this pass comes last and changes no model. What packing saves is said
in docs/adr; while the file loads it takes its expanded size more memory.
"""

import onnx

from compression.job import Recipe
from compression.packed import writing
from compression.words import Words

NAME = "packed"


class Settings(Words):
    """It has no parameters."""


def wanted(recipe: Recipe) -> bool:
    """Whether the file of what a recipe makes is packed."""
    return any(spec.name == NAME for spec in recipe.passes)


def content(recipe: Recipe, variant: onnx.ModelProto) -> bytes:
    """Return the file of what a recipe made.

    Raises:
        BadModel: the packed file would grow beyond reason when it is expanded.
    """
    plain = variant.SerializeToString(deterministic=True)
    return writing.pack(plain) if wanted(recipe) else plain
