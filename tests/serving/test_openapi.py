"""The description of the interface: it names every route, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from agent.serving import openapi, public_api

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
DESCRIBED = [
    (method.upper(), path)
    for path, operations in openapi.document()["paths"].items()
    for method in operations
]


def test_the_copy_in_the_documentation_is_the_one_that_is_served() -> None:
    assert json.loads(DOCUMENT.read_text()) == openapi.document(), (
        "write it anew: python -m agent.serving.openapi > docs/openapi.json"
    )


@pytest.mark.parametrize(("method", "path"), DESCRIBED)
def test_what_is_described_is_answered(method: str, path: str) -> None:
    found = public_api.ROUTES.find(method, re.sub(r"\{\w+\}", "some", path))
    assert isinstance(found[0], object)
    assert callable(found[0]), f"no route answers {method} {path}"
    assert found[0] is not public_api._not_offered


def test_every_route_is_described() -> None:
    filled = [(method, re.sub(r"\{\w+\}", "some", path)) for method, path in DESCRIBED]
    for method, pattern, handler in public_api.ROUTES:
        if handler is not public_api._not_offered:
            assert any(m == method and pattern.match(path) for m, path in filled), pattern.pattern


def test_each_reference_leads_somewhere() -> None:
    text = json.dumps(openapi.document())
    for name in re.findall(r"#/components/schemas/(\w+)", text):
        assert name in openapi.SCHEMAS
