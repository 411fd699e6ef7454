"""Reads detections out of outputs of any common layout, by role and column (numpy only).

One output of rows (`columns` says what stands where), or boxes, scores, classes and a count as
outputs of their own. Rows below the score threshold, of a class below zero, of a box that is all
-1, or beyond the count, are padding and are left out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.alike.matching import Floats, Found
from compression.errors import BadInputs
from compression.job import BoxFormat, OutputSpec, Role

Array = NDArray[Any]
SCORE_THRESHOLD = 0.25
IOU_THRESHOLD = 0.5
MOST = 300
"""Detections per sample that are judged, the surest; raw heads give thousands."""
COLUMNS: dict[int, tuple[str, ...]] = {
    5: ("box", "score"),
    6: ("box", "score", "class"),
    7: ("image", "box", "class", "score"),
}
"""By the number of columns, where nobody names them; wider: box, objectness, classes."""
CORNERS: dict[BoxFormat, Callable[[Floats], Floats]] = {
    "xyxy": lambda boxes: boxes,
    "yxyx": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "xywh": lambda boxes: np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
    "cxcywh": lambda boxes: np.hstack(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2]
    ),
}
"""From four columns to x1, y1, x2, y2."""

Roles = dict[Role, OutputSpec]


def read(roles: Roles, arrays: Mapping[str, Array]) -> Found:
    """Return the detections of one sample.

    Raises:
        BadInputs: an output does not have the shape that its role needs.
    """
    given = {role: np.asarray(arrays[spec.name]) for role, spec in roles.items()}
    main = roles.get("rows") or roles["boxes"]
    if "rows" in given:
        boxes, scores, classes, images = _from_columns(main, given["rows"])
    else:
        boxes, scores, classes, images = _from_outputs(roles, given)
    kept = (classes >= 0) & ~(boxes == -1).all(axis=1) & (images >= 0)
    if "count" in given:
        kept &= _within(given["count"], images)
    threshold = next((s.threshold for s in roles.values() if s.threshold is not None), None)
    if scores is not None:
        kept &= scores >= (SCORE_THRESHOLD if threshold is None else threshold)
    else:
        scores = np.ones(len(boxes))
    found = Found(
        _corners(boxes[kept], roles), classes[kept].astype(np.int64),
        images[kept].astype(np.int64), scores[kept],
    )  # fmt: skip
    return _surest(found)


def iou_threshold(roles: Roles) -> float:
    """The least overlap of a hit, 0.5 where none is given."""
    named = (s.iou_threshold for s in roles.values() if s.iou_threshold is not None)
    return next(named, IOU_THRESHOLD)


def _from_columns(spec: OutputSpec, array: Array) -> tuple[Floats, Floats | None, Floats, Floats]:
    axis = -1 if spec.axis is None else spec.axis
    if array.ndim < 2 or not -array.ndim <= axis < array.ndim:
        raise _bad(spec, array, "rows of columns are needed")
    table = np.moveaxis(np.asarray(array, np.float64), axis, -1)
    count, width = table.shape[-2:]
    table = table.reshape(-1, width)
    images = np.arange(len(table), dtype=np.float64) // max(1, count)
    columns = spec.columns or COLUMNS.get(width, ("box", "objectness", "classes"))
    at, taken = 0, {}
    rest = width - sum({"box": 4, "classes": 0}.get(name, 1) for name in columns)
    for name in columns:
        wide = {"box": 4, "classes": rest}.get(name, 1)
        taken[name] = table[:, at : at + wide]
        at += wide
    if rest < ("classes" in columns) or "box" not in taken:
        raise _bad(spec, array, f"columns {'+'.join(columns)} do not fit {width}")
    images = taken["image"][:, 0] if "image" in taken else images
    scores = taken["score"][:, 0] if "score" in taken else None
    classes = taken["class"][:, 0] if "class" in taken else np.zeros(len(table))
    if "classes" in taken:
        scores, classes = _surest_class(spec, taken["classes"])
    if "objectness" in taken:
        scores = taken["objectness"][:, 0] * (1.0 if scores is None else scores)
    return taken["box"], scores, np.rint(classes), images


def _from_outputs(
    roles: Roles, given: Mapping[Role, Array]
) -> tuple[Floats, Floats | None, Floats, Floats]:
    boxes = np.asarray(given["boxes"], np.float64)
    if boxes.ndim < 2 or boxes.shape[-1] != 4:
        raise _bad(roles["boxes"], boxes, "boxes need four numbers each")
    count = boxes.shape[-2]
    flat = boxes.reshape(-1, 4)
    images = np.arange(len(flat), dtype=np.float64) // max(1, count)
    scores, classes = None, np.zeros(len(flat))
    if "scores" in given:
        scores, classes = _scores(roles["scores"], given["scores"], len(flat), count)
    if "classes" in given:
        values = np.asarray(given["classes"], np.float64)
        if values.size != len(flat):
            raise _bad(roles["classes"], values, f"there are {len(flat)} boxes")
        classes = np.rint(values.ravel())
    return flat, scores, classes, images


def _scores(spec: OutputSpec, array: Array, total: int, count: int) -> tuple[Floats, Floats]:
    """Scores per box, or per box and class in either order: the surest class decides."""
    values = np.asarray(array, np.float64)
    if values.size == total:
        return values.ravel(), np.zeros(total)
    if values.ndim >= 2 and values.shape[-2] == count and values.size % max(1, total) == 0:
        return _surest_class(spec, values.reshape(total, -1))
    if values.ndim >= 2 and values.shape[-1] == count and values.size % max(1, total) == 0:
        turned = np.swapaxes(values, -1, -2)
        return _surest_class(spec, turned.reshape(total, -1))
    raise _bad(spec, values, f"there are {total} boxes")


def _surest_class(spec: OutputSpec, values: Floats) -> tuple[Floats, Floats]:
    """The highest score of each row and its class; `blank` is the class of no object."""
    if not values.size:
        return np.zeros(len(values)), np.zeros(len(values))
    classes = values.argmax(axis=1).astype(np.float64)
    scores: Floats = values.max(axis=1)
    if spec.blank is not None:
        classes[classes == spec.blank] = -1
    return scores, classes


def _within(counts: Array, images: Floats) -> NDArray[np.bool_]:
    """Which rows lie before their image's count."""
    flat = np.asarray(counts, np.float64).ravel()
    within = np.zeros(len(images), bool)
    for image, count in enumerate(flat):
        rows = np.flatnonzero(images == image)
        within[rows[: max(0, int(count))]] = True
    return within


def _corners(boxes: Floats, roles: Roles) -> Floats:
    named = (s.box_format for s in roles.values() if s.box_format is not None)
    with np.errstate(invalid="ignore"):  # an infinite width has no corner
        return CORNERS[next(named, "xyxy")](boxes)


def _surest(found: Found) -> Found:
    if len(found) <= MOST:
        return found
    # By coordinates where scores are equal: the order of the rows must not decide.
    order = np.lexsort((*found.boxes.T, found.classes, -found.scores))[:MOST]
    return Found(found.boxes[order], found.classes[order], found.images[order], found.scores[order])


def _bad(spec: OutputSpec, array: Array, why: str) -> BadInputs:
    shape = list(array.shape)
    return BadInputs(f"cannot read detections from output {spec.name!r} of shape {shape}: {why}")
