"""Which output of a detector holds what: by the roles given, else by names and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike.rows import Roles
from compression.errors import BadInputs
from compression.job import OutputSpec, Role
from compression.meaning import heads

Array = NDArray[Any]


def resolve(specs: Sequence[OutputSpec], arrays: Mapping[str, Array]) -> Roles | None:
    """Which output is what: by the roles given, else by names and shapes; None: it is unclear.

    Raises:
        BadInputs: roles are given and do not suffice, or two outputs have one role.
    """
    roles: Roles = {}
    for spec in specs:
        role = spec.role or ("rows" if spec.columns else _role(spec, np.asarray(arrays[spec.name])))
        if role is None:
            continue
        if role in roles and (spec.role or roles[role].role):
            raise BadInputs(
                f"cannot judge detections: outputs {roles[role].name!r} and {spec.name!r} are "
                f"both {role}"
            )
        roles.setdefault(role, spec)
    if not {"rows", "boxes"} & set(roles):
        if any(spec.role for spec in specs):
            raise BadInputs("cannot judge detections: no output has the role boxes or rows")
        return None
    return roles


def _role(spec: OutputSpec, array: Array) -> Role | None:
    last = array.shape[-1] if array.ndim else 0
    integers = bool(np.issubdtype(array.dtype, np.integer))
    return heads.role(spec.name, rank=array.ndim, last=last, integers=integers)
