"""Shapes of inputs as a person writes them: NAME=1x3x48x320."""

import re
from collections.abc import Sequence

from agent.errors import BadInput
from compression.job import InputSpec

FORMAT = "NAME=DIMxDIM..."
# The last equals sign: names of inputs may hold some, too.
_GIVEN = re.compile(r"(?P<name>.+)=(?P<dims>\d{1,9}(?:x\d{1,9})*)", re.DOTALL)


def read(*, usual: Sequence[str] = (), largest: Sequence[str] = ()) -> tuple[InputSpec, ...]:
    """The inputs that shapes were given for: the usual shape (reference) and the largest one.

    The dtype stays `unknown`: it is the model's to say.

    Raises:
        BadInput: not NAME=DIMxDIM..., a dim of 0, a name given twice, or two ranks of one input.
    """
    shapes = {"reference_shape": _all(usual), "largest_shape": _all(largest)}
    found = []
    for name in dict.fromkeys(name for given in shapes.values() for name in given):
        own = {field: given[name] for field, given in shapes.items() if name in given}
        ranks = {len(shape) for shape in own.values()}
        if len(ranks) > 1:
            raise BadInput(f"cannot use the shapes of input {name!r}: {len(ranks)} ranks")
        any_dims = (-1,) * ranks.pop()
        found.append(InputSpec(name=name, dtype="unknown", shape=any_dims, **own))
    return tuple(found)


def _all(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        given = _GIVEN.fullmatch(text)
        dims = tuple(int(dim) for dim in given["dims"].split("x")) if given else ()
        if given is None or 0 in dims:
            raise BadInput(f"cannot read shape {text!r}: write {FORMAT}, such as x=1x3x48x320")
        if given["name"] in found:
            raise BadInput(f"cannot read shape {text!r}: {given['name']!r} is given twice")
        found[given["name"]] = dims
    return found
