"""Asks models over HTTP as any client would: Open Inference Protocol v2, binary tensors.

Two models are asked in turn, sample by sample, so that whatever else the machine does falls
on both alike.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from agent.errors import BadInput, Unavailable
from agent.protocol.oip import BINARY_TYPE, HEADER_LENGTH
from agent.protocol.tensors import DATATYPES, NAMES, Array, from_bytes, to_bytes

TIMEOUT_S = 60.0
WARM_UP = 5
Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class Answer:
    """What came back: arrays by output name, and the wall time as the client saw it."""

    outputs: dict[str, Array]
    latency_ms: float


def encode(inputs: Inputs) -> tuple[bytes, int]:
    """The body of an infer request, and how many bytes of it are JSON."""
    listed, raw = [], []
    for name, array in inputs.items():
        data = to_bytes(array)
        raw.append(data)
        listed.append(
            {
                "name": name,
                "shape": array.shape,
                "datatype": NAMES[array.dtype],
                "parameters": {"binary_data_size": len(data)},
            }
        )
    head = {"inputs": listed, "parameters": {"binary_data_output": True}}
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([text, *raw]), len(text)


def decode(body: bytes, json_bytes: int) -> dict[str, Array]:
    """The outputs of an infer response by name.

    Raises:
        BadInput: a tensor is not what the response says it is.
    """
    outputs, at = {}, json_bytes
    for tensor in json.loads(body[:json_bytes])["outputs"]:
        name, dtype = tensor["name"], DATATYPES[tensor["datatype"]]
        shape = tuple(tensor["shape"])
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[name] = np.array(tensor["data"], dtype).reshape(shape)
            continue
        data = memoryview(body)[at : at + size]
        outputs[name] = from_bytes(name, data, dtype=dtype, shape=shape)
        at += size
    return outputs


class Caller:
    """One connection to a server, kept open."""

    def __init__(self, url: str) -> None:
        """Talk to the server at `url`, such as http://127.0.0.1:8000."""
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def infer(self, model: str, inputs: Inputs) -> Answer:
        """Ask `model` about one batch.

        Raises:
            Unavailable: no connection, or an answer that is no 200; with the server's words.
        """
        body, json_bytes = encode(inputs)
        headers = {"Content-Type": BINARY_TYPE, HEADER_LENGTH: str(json_bytes)}
        begun = time.perf_counter()
        try:
            self._connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Unavailable(f"cannot ask {model}: {type(error).__name__}: {error}") from error
        latency_ms = 1000 * (time.perf_counter() - begun)
        if response.status != http.client.OK:
            said = answer[:300].decode(errors="replace")
            raise Unavailable(f"cannot ask {model}: HTTP {response.status}: {said}")
        length = response.getheader(HEADER_LENGTH)
        try:
            outputs = decode(answer, int(length) if length else len(answer))
        except (ValueError, KeyError, TypeError, BadInput) as error:
            raise Unavailable(f"cannot read the answer of {model}: {error}") from error
        return Answer(outputs, latency_ms)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def interleave(
    url: str,
    models: Sequence[str],
    samples: Sequence[Inputs],
    *,
    on_sample: Callable[[int], Any] = lambda _: None,
) -> dict[str, list[Answer]]:
    """Ask every model about every sample, in turn; each goes first equally often.

    Returns the answers by model, in the order of `samples`; the first few requests that warm
    caches and clocks are not among them.

    Raises:
        Unavailable: a request failed.
    """
    answers: dict[str, list[Answer]] = {model: [] for model in models}
    caller = Caller(url)
    try:
        for inputs in samples[:WARM_UP]:
            for model in models:
                caller.infer(model, inputs)
        for at, inputs in enumerate(samples):
            for turn in range(len(models)):
                model = models[(at + turn) % len(models)]
                answers[model].append(caller.infer(model, inputs))
            on_sample(at + 1)
    finally:
        caller.close()
    return answers
