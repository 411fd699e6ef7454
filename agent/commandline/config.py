"""Show every setting in force: its value, where it comes from, its default and what it means."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.table import Table

from agent import config

EXAMPLES = """\
examples:
  trimtab config
  trimtab config --file ./trimtab.toml        check a file before it is installed
  TRIMTAB_BROKER__HOST=broker.lan trimtab config --json
"""
_SECRETS = {"broker.password"}
_MASK = "********"


@dataclass(frozen=True)
class Setting:
    """One setting as it is shown; `source` is `default`, `file` or `environment`."""

    value: Any
    source: str
    default: Any
    about: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument("--file", type=Path, help="read this file instead of the usual one")


def run(arguments: argparse.Namespace) -> int:
    """Load the settings as the agent would, and print them."""
    settings = config.load(arguments.file)
    where = config.locate(arguments.file)
    shown = describe(settings, document=config.read_file(where), environment=os.environ)
    if arguments.json:
        document = {"file": str(where) if where else None} | {
            "settings": {name: asdict(setting) for name, setting in shown.items()}
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    Console(highlight=False, markup=False).print(f"file: {where or 'none'}\n", _table(shown))
    return 0


def _table(shown: Mapping[str, Setting]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for name, setting in shown.items():
        default = "" if setting.source == "default" else f" (default: {_plain(setting.default)})"
        table.add_row(name, _plain(setting.value), setting.source + default)
        if setting.about:
            table.add_row("", setting.about, "", style="dim")
    return table


def describe(
    settings: config.Settings, *, document: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Setting]:
    """Every setting by its dotted name; what is secret is masked wherever it is set."""
    upper = {name.upper() for name in environment}
    plain = settings.model_dump(mode="json")
    shown = {}
    for steps, field in _fields(type(settings)):
        name = ".".join(steps)
        source = _source(steps, document, upper)
        value, default = _at(plain, steps), _default(field)
        if name in _SECRETS and value is not None:
            value = _MASK
        shown[name] = Setting(value, source, default, field.description or "")
    return shown


def _fields(
    model: type[BaseModel], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """The path and the declaration of every setting that is no group of settings."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, (*above, name))
        else:
            yield (*above, name), field


def _source(steps: tuple[str, ...], document: Mapping[str, Any], upper: set[str]) -> str:
    # TRIMTAB_BROKER may hold the whole group as JSON, so each level is looked for.
    names = {"TRIMTAB_" + "__".join(steps[:depth]).upper() for depth in range(1, len(steps) + 1)}
    if names & upper:
        return "environment"
    return "file" if _at(document, steps) is not None else "default"


def _at(tree: Mapping[str, Any], steps: tuple[str, ...]) -> Any:
    found: Any = tree
    for step in steps:
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True, validated_data={})
    return str(value) if isinstance(value, Path) else value


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) or "-" if isinstance(value, (list, tuple)) else str(value)
