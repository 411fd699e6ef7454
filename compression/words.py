"""The base of every word that crosses a process or a wire: frozen, and strict about names."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

_SECRETS = {"password"}
"""Fields whose values never stand in a message."""


class Words(BaseModel):
    """A frozen record. Unknown fields are refused by name; NaN and infinities too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> bytes:
        """Encode as compact JSON without the fields that were left at None."""
        return self.model_dump_json(exclude_none=True).encode()


def explain(error: ValidationError) -> str:
    """Say in one line what is wrong, naming each field by its path (at most five)."""
    parts = [_one(item) for item in error.errors(include_url=False)[:5]]
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")


def _one(item: Any) -> str:
    where = ".".join(str(step) for step in item["loc"]) or "document"
    if item["type"] == "extra_forbidden":
        return f"unknown field '{where}'"
    if item["type"] == "missing":
        return f"missing field '{where}'"
    value = "***" if _SECRETS & set(item["loc"]) else repr(item.get("input"))
    shown = value if len(value) <= 60 else value[:57] + "..."
    return f"{where}: {item['msg'][:1].lower()}{item['msg'][1:]} (got {shown})"
