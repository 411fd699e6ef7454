"""Which passes the rules propose to a class of processor, by the formats that they multiply in."""

from compression.choosing import search
from compression.job import DeviceClass, Recipe

KINDS = ("Conv", "Gemm", "MatMul", "LSTM")
EVERYTHING = search.Facts(weighted=dict.fromkeys(KINDS, 1), elementwise=1, looked_up=1)
"""A model to which every rule has something to say."""
Format = tuple[str, str, str]


def formats(recipe: Recipe) -> set[Format]:
    """Name, activations and weights of each pass; empty where a pass has no such parameter."""
    return {
        (
            spec.name,
            str(spec.parameters.get("activations", "")),
            str(spec.parameters.get("weights", "")),
        )
        for spec in recipe.passes
    }


def proposed(device: DeviceClass, facts: search.Facts = EVERYTHING) -> set[Format]:
    """Return all formats that a class gets for a model with these facts."""
    return {one for recipe in search.candidates(facts, device) for one in formats(recipe)}
