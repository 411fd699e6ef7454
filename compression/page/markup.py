"""Elements of HTML and SVG as text in which every name of a model is escaped (pure)."""

from html import escape


class Markup(str):
    """Text that is markup already; any other string is escaped where it is put in."""

    __slots__ = ()


Child = str | None
Value = str | float | None


def element(name: str, /, *children: Child, **attributes: Value) -> Markup:
    """One element. `class_` stands for class, `_` for a hyphen; what is None is left out."""
    shown = "".join(
        f' {_attribute(key)}="{escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = join(*children)
    if not inside and name in VOID:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{inside}</{name}>")


def join(*children: Child) -> Markup:
    """Several pieces behind one another."""
    return Markup("".join(_safe(child) for child in children if child is not None))


VOID = {
    "br", "meta", "circle", "line", "rect", "path", "polyline",
}  # fmt: skip
"""Elements that hold nothing."""


def _safe(child: str) -> str:
    return child if isinstance(child, Markup) else escape(_printable(child), quote=True)


def _printable(text: str) -> str:
    """Text without control characters and without half of a surrogate pair: no file holds those."""
    return "".join(
        c if c.isprintable() or c in "\n\t " else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(value: str | float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _printable(str(value))
