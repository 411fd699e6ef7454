"""Ask a served model with nothing but Python: JSON, one connection, and what to do about errors.

trimtab serve m=model.onnx
python deploy/examples/with_plain_http.py --model m
"""

import argparse
import http.client
import json
import math
import time
from typing import Any

_PATIENCE = 5


class Failed(Exception):
    """The server's own words."""


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    """One request; told to come again (503), it waits as long as it was told.

    Raises:
        Failed: what the server says is wrong.
    """
    for _ in range(_PATIENCE):
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 200:
            return document
        if answer.status != 503:
            break
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    raise Failed(f"{answer.status}: {document['error']}")


def main() -> None:
    """Describe a model, then run it on zeros."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    connection = http.client.HTTPConnection(arguments.url, timeout=30)
    metadata = ask(connection, "GET", f"/v2/models/{arguments.model}")
    inputs = []
    for each in metadata["inputs"]:
        shape = [1 if size == -1 else size for size in each["shape"]]
        nothing: Any = {"BYTES": "", "BOOL": False}.get(each["datatype"], 0)
        inputs.append({**each, "shape": shape, "data": [nothing] * math.prod(shape)})
        print(f"input  {each['name']} {each['datatype']} {each['shape']}")
    asked = {"id": "1", "inputs": inputs, "parameters": {"timeout": 2_000_000}}
    result = ask(connection, "POST", f"/v2/models/{arguments.model}/infer", asked)
    for output in result["outputs"]:
        print(f"output {output['name']} {output['shape']}: {output['data'][:5]} ...")


if __name__ == "__main__":
    main()
