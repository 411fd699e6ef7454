"""Requests that are nearly right: streams of bytes, JSON documents and tensor descriptions."""

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.serving.at_the_door import chunked, post

PATH = "/v2/models/mlp/infer"
ROW = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": [0.5] * 8}
DOCUMENTS: list[dict[str, Any]] = [
    {"inputs": [ROW]},
    {"inputs": [{**ROW, "data": [[0.5] * 8]}], "id": "7", "outputs": [{"name": "y"}]},
    {
        "inputs": [{**ROW, "parameters": {"binary_data_size": 32}}],
        "parameters": {"binary_data_output": True, "timeout": 1_000_000, "priority": 1},
        "outputs": [{"name": "y", "parameters": {"binary_data": False, "classification": 2}}],
    },
    {"inputs": [{"name": "x", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]},
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"content-length: 5\r\n",
    b"content-length: 99999999999999999999\r\n", b"transfer-encoding: chunked\r\n", b"0\r\n\r\n",
    b"ffffffffffff\r\n", b"connection: close\r\n", b"expect: 100-continue\r\n", b"HTTP/1.1",
    b"inference-header-content-length: 0\r\n", b"inference-header-content-length: 70\r\n",
    b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n",
    b"%00", b"%ff%", b"..", b"\xff\xfe", b"a" * 9000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 8, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64,
    1e308, -1e-320, 0.5, "", "x", "y", "\0", "\ud7ff" * 50, "z" * 3000, [], {}, [[]], [{}], {"": 0},
    [0.5] * 8, [[0.5] * 8], [1, 8], [0, 2**40], [8, -1], [1] * 40, [[[[[[[[1]]]]]]]], "FP16",
    "FP32", "INT64", "UINT8", "BOOL", "BYTES", "BF16", ["a", "\u00e4"], ROW,
    {"binary_data_size": 32}, {"binary_data_size": -1},
    {"shared_memory_region": "r", "shared_memory_byte_size": 32}, {"classification": 10**9},
]  # fmt: skip
KEYS = [
    "name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "id", "", "binary_data",
    "binary_data_size", "binary_data_output", "classification", "timeout", "sequence_id",
]  # fmt: skip


def streams(random: Random) -> bytes:
    """A stream of requests, changed in a few places."""
    parts = [_request(random) for _ in range(random.randint(1, 3))]
    data = b"".join(parts)
    for _ in range(random.randint(1, 6)):
        data = random.choice(CHANGES)(random, data)
    return data


def _request(random: Random) -> bytes:
    body = json.dumps(random.choice(DOCUMENTS)).encode()
    binary = f"inference-header-content-length: {len(body)}"
    kinds: list[Callable[[], bytes]] = [
        lambda: b"GET /v2/models/mlp HTTP/1.1\r\nhost: x\r\n\r\n",
        lambda: b"HEAD /v2/health/ready HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n",
        lambda: b"POST /v2/repository/index HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}",
        lambda: post(PATH, body),
        lambda: post(PATH, body + b"\0" * 32, binary),
        lambda: post(PATH, b"\0" * 32, "inference-header-content-length: 0"),
        lambda: chunked(PATH, body[:20], body[20:]),
        lambda: chunked(PATH, body, b"\0" * 32, fields=f"{binary}\r\n", trailer=b"x: y\r\n"),
    ]
    return random.choice(kinds)()


def _at(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice([1, 1, 2, 5, 40]))


def _flip(random: Random, data: bytes) -> bytes:
    start, _ = _at(random, data)
    return data[:start] + bytes([random.randrange(256)]) + data[start + 1 :]


def _cut(random: Random, data: bytes) -> bytes:
    start, end = _at(random, data)
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes) -> bytes:
    start, end = _at(random, data)
    return data[:end] + data[start:end] * random.choice([1, 2, 50]) + data[end:]


def _insert(random: Random, data: bytes) -> bytes:
    start, _ = _at(random, data)
    return data[:start] + random.choice(WORDS) + data[start:]


def _digits(random: Random, data: bytes) -> bytes:
    """Change a number, which is most often a length."""
    places = [at for at, byte in enumerate(data) if 48 <= byte < 58]
    if not places:
        return data
    at = random.choice(places)
    return data[:at] + random.choice([b"", b"0", b"9", b"99", b"-1", b"x"]) + data[at + 1 :]


CHANGES = [_flip, _cut, _repeat, _insert, _digits, _digits]


def documents(random: Random) -> bytes:
    """A well-formed HTTP request whose JSON is nearly right."""
    document = copy.deepcopy(random.choice(DOCUMENTS))
    for _ in range(random.randint(1, 4)):
        _change(random, document)
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    if random.random() < 0.1:
        text = _flip(random, text)
    if random.random() < 0.5:
        return post(PATH, text)
    tail = random.randbytes(random.choice([0, 31, 32, 33, 64]))
    length = len(text) + random.choice([0, 0, 0, 0, -1, 1, 40])
    return post(PATH, text + tail, f"inference-header-content-length: {length}")


def _change(random: Random, document: dict[str, Any]) -> None:
    """Change one value, somewhere."""
    holder: Any = document
    while True:
        inner = [each for each in _values(holder) if isinstance(each, dict | list) and each]
        if not inner or random.random() < 0.3:
            break
        holder = random.choice(inner)
    if isinstance(holder, list):
        holder[random.randrange(len(holder))] = copy.deepcopy(random.choice(VALUES))
        return
    key = random.choice([*holder, random.choice(KEYS)])
    if random.random() < 0.2:
        holder.pop(key, None)
    else:
        holder[key] = copy.deepcopy(random.choice(VALUES))


def _values(holder: Any) -> list[Any]:
    return list(holder.values()) if isinstance(holder, dict) else list(holder)


def tensors(random: Random) -> bytes:
    """A binary request whose tensors are described at random."""
    listed, tail = [], b""
    for _ in range(random.randint(0, 3)):
        datatype = random.choice(
            ["FP32", "FP16", "FP64", "BOOL", "INT8", "UINT64", "BYTES", "BF16"]
        )
        shape = [
            random.choice([0, 1, 1, 2, 8, 2**20, 2**62, -1]) for _ in range(random.randint(0, 4))
        ]
        size = random.choice([0, 1, 4, 8, 16, 32, 32, 64, 2**40, -1])
        data = random.randbytes(min(max(size, 0), 64))
        if datatype == "BYTES" and random.random() < 0.7:
            data = b"".join(
                n.to_bytes(4, "little") + b"s" * n for n in (0, 3, random.randint(0, 9))
            )
            size = len(data)
        name = random.choice(["x", "x", "z", ""])
        parameters = {"binary_data_size": size}
        listed.append(
            {"name": name, "shape": shape, "datatype": datatype, "parameters": parameters}
        )
        tail += data
    text = json.dumps({"inputs": listed}).encode()
    if random.random() < 0.1:
        return post(
            random.choice(ECHOES), random.randbytes(40), "inference-header-content-length: 0"
        )
    fields = f"inference-header-content-length: {len(text)}"
    return post(random.choice(ECHOES), text + tail, fields)


ECHOES = [PATH, *(f"/v2/models/{kind}/infer" for kind in ("FP32", "BYTES", "BOOL", "FP16"))]
KINDS: dict[str, Callable[[Random], bytes]] = {
    "streams": streams, "documents": documents, "tensors": tensors,
}  # fmt: skip
