"""What outputs mean, as a person writes it: NAME=KIND, a number, fields by name; or as JSON."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from agent.errors import BadInput
from compression.job import OutputKind, OutputSpec
from compression.words import explain

FORMAT = "NAME=KIND[:NUMBER][,FIELD=VALUE...]"
NUMBERS: dict[str, str] = {
    "logits": "axis", "steps": "blank", "embedding": "axis", "score": "threshold",
    "detections": "threshold", "mask": "threshold",
}  # fmt: skip
"""What a number alone stands for, by kind."""
FIELDS: dict[str, tuple[str, ...]] = {
    "axis": ("logits", "steps", "embedding", "mask", "detections"),
    "blank": ("steps", "detections"),
    "threshold": ("score", "mask", "detections"),
    "role": ("detections",),
    "columns": ("detections",),
    "box_format": ("detections",),
    "iou_threshold": ("detections",),
    "classes": ("logits", "steps"),
}
"""The fields that may be named, and the kinds that have them."""
_KINDS = "|".join(get_args(OutputKind))
_SPECS: TypeAdapter[tuple[OutputSpec, ...]] = TypeAdapter(tuple[OutputSpec, ...])
# The first "=KIND" that ends a word: names may hold colons, slashes and equals signs.
_GIVEN = re.compile(rf"(?P<name>.+?)=(?P<kind>{_KINDS})(?:[:,](?P<rest>.*))?", re.DOTALL)


def read(texts: Sequence[str]) -> tuple[OutputSpec, ...]:
    """The outputs of repeated `NAME=KIND[:NUMBER][,FIELD=VALUE...]`, JSON, or names of JSON files.

    `columns` are joined by plus signs; `classes` names a file with one name per line. JSON is one
    object, or a list of them, with the fields of OutputSpec, as ladders and manifests have them.

    Raises:
        BadInput: an unknown kind or field, one that the kind does not have, or a bad value; an
            output that is named twice.
    """
    found = tuple(spec for text in texts for spec in _outputs(text))
    names = [spec.name for spec in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"cannot read outputs: {twice[0]!r} is given twice")
    return found


def _outputs(text: str) -> tuple[OutputSpec, ...]:
    if text.lstrip()[:1] in {"[", "{"}:
        return _json(text, text.encode())
    if _GIVEN.fullmatch(text) is None and Path(text).is_file():
        try:
            return _json(text, Path(text).read_bytes())
        except OSError as error:
            raise _bad(text, error.strerror or str(error)) from error
    return (_output(text),)


def _json(text: str, content: bytes) -> tuple[OutputSpec, ...]:
    many = content if content.lstrip()[:1] == b"[" else b"[" + content + b"]"
    try:
        return _SPECS.validate_json(many)
    except ValidationError as error:
        raise _bad(text[:60], explain(error)) from error


def _output(text: str) -> OutputSpec:
    found = _GIVEN.fullmatch(text)
    if found is None:
        raise _bad(text, f"write {FORMAT}; kinds: {_KINDS.replace('|', ', ')}")
    kind = found["kind"]
    fields: dict[str, object] = {"name": found["name"], "kind": kind}
    for part in filter(None, (found["rest"] or "").split(",")):
        field, value = _field(text, kind, part)
        if field in fields:
            raise _bad(text, f"{field} is given twice")
        fields[field] = value
    try:
        return OutputSpec.model_validate(fields)
    except ValidationError as error:
        raise _bad(text, explain(error)) from error


def _field(text: str, kind: str, part: str) -> tuple[str, object]:
    name, separator, value = part.partition("=")
    if not separator:
        if kind not in NUMBERS:
            raise _bad(text, f"kind {kind!r} takes no number")
        return NUMBERS[kind], part
    if name not in FIELDS:
        raise _bad(text, f"unknown field {name!r}; known: {', '.join(FIELDS)}")
    if kind not in FIELDS[name]:
        raise _bad(text, f"kind {kind!r} has no {name}")
    if name == "columns":
        return name, value.split("+")
    return name, _lines(text, Path(value)) if name == "classes" else value


def _lines(text: str, path: Path) -> list[str]:
    """The names of classes in a file, one per line; blank lines count."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(text, f"cannot read {path} ({error})") from error


def _bad(text: str, why: str) -> BadInput:
    return BadInput(f"cannot read output {text!r}: {why}")


def describe(spec: OutputSpec) -> str:
    """One output as a line, as it could be given again."""
    parts = [f"{spec.name}={spec.kind}"]
    for field in FIELDS:
        value = getattr(spec, field)
        if value is None or value == ():
            continue
        shown = "+".join(value) if field == "columns" else value
        parts.append(f"{len(value)} classes" if field == "classes" else f"{field}={shown}")
    return ",".join(parts) + (" (guessed; name it with --outputs)" if spec.guessed else "")
