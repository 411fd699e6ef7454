"""The server against its own OpenAPI document, by schemathesis: whoever reads that knows all."""

import subprocess
from pathlib import Path

import pytest

from agent.host.offer import Offer
from tests.simulators import environments, models, serving

REQUIREMENTS = ("schemathesis==4.32.5",)
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.mark.prove
def test_fuzz_by_the_openapi_document(tmp_path: Path) -> None:
    python = environments.python("schemathesis", REQUIREMENTS)
    with serving.running(offer=Offer(shared_memory=True)) as server:
        server.load("mlp", models.mlp(tmp_path / "mlp.onnx"))
        url = f"http://{server.address}"
        done = subprocess.run(
            [str(python.with_name("schemathesis")), "run", f"{url}/openapi.json", "--url", url,
             "--checks", CHECKS, "--max-examples", "200", "--seed", "1", "--no-color"],
            cwd=tmp_path, capture_output=True, text=True, check=False, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert server.supervisor.restarts == 0
