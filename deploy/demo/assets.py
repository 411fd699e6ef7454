"""Finds Magika's model and its vocabulary in the installed wheel, without importing it."""

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from agent.errors import Unavailable

_MODEL = "model.onnx"
_CONFIG = "config.min.json"
_KNOWLEDGE = "content_types_kb.min.json"

# The vocabulary names few extensions for each type; these are as common on Linux.
_MORE = {
    "crt": {"pem"},
    "h": {"c", "cpp", "objectivec"},
    "o": {"elf"},
    "pm": {"perl"},
    "so": {"elf"},
}
_NO_TYPE = {"txt"}
"""They say nothing about the content: Markdown, lists and mail are all called .txt."""


@dataclass(frozen=True)
class Assets:
    """The model file, what its outputs are called, and what file extensions stand for."""

    model: Path
    labels: tuple[str, ...]
    """The name of each output class, in the model's order."""
    by_extension: dict[str, frozenset[str]]
    """Extension in lower case without the dot -> the labels that it may stand for."""
    version: str


def find() -> Assets:
    """Locate the files by the wheel's own record of what it installed.

    Raises:
        Unavailable: magika is not installed, or it has no model where one is expected.
    """
    try:
        distribution = metadata.distribution("magika")
    except metadata.PackageNotFoundError as error:
        raise Unavailable(
            "cannot find the demo's model: install the extra, pip install 'trimtab[demo]'"
        ) from error
    paths = {
        name: [Path(str(file.locate())) for file in distribution.files or [] if file.name == name]
        for name in (_MODEL, _CONFIG, _KNOWLEDGE)
    }
    missing = [name for name, found in paths.items() if len(found) != 1]
    if missing:
        raise Unavailable(
            f"cannot find the demo's model: magika {distribution.version} has "
            f"not exactly one {', '.join(missing)}"
        )
    labels = tuple(_json(paths[_CONFIG][0])["target_labels_space"])
    return Assets(
        model=paths[_MODEL][0],
        labels=labels,
        by_extension=extensions(_json(paths[_KNOWLEDGE][0]), labels),
        version=distribution.version,
    )


def extensions(knowledge: dict[str, Any], labels: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Turn label -> extensions around, for the labels that the model can answer with."""
    found: dict[str, set[str]] = {}
    for label in labels:
        for extension in knowledge.get(label, {}).get("extensions", ()):
            found.setdefault(extension.lower(), set()).add(label)
    for extension, more in _MORE.items():
        found.setdefault(extension, set()).update(more & set(labels))
    return {
        extension: frozenset(meanings)
        for extension, meanings in found.items()
        if meanings and extension not in _NO_TYPE
    }


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot read {path}: {error}") from error
