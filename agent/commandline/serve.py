"""Serve ONNX models over the Open Inference Protocol v2, without fleet or agent.

The server is a process of its own, which is restarted when a model brings it down; callers wait
meanwhile. It runs until it is interrupted.
"""

import argparse
import asyncio
import hashlib
import logging
import signal
import sys
from pathlib import Path

from agent.commandline import as_measured
from agent.errors import BadInput
from agent.host.offer import Offer
from agent.host.supervisor import Supervisor
from agent.protocol import topics
from agent.protocol.private import LoadRequest

EXAMPLES = """examples:
  trimtab serve mnist=mnist.onnx
  trimtab serve a=a.onnx b=b.onnx --port 8080 --threads 2

  curl http://127.0.0.1:8000/v2/models/mnist
  curl http://127.0.0.1:8000/v2/models/mnist/infer -d \\
    '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1.5]}]}'

  import numpy, tritonclient.http as http
  client = http.InferenceServerClient("127.0.0.1:8000")
  x = http.InferInput("x", [1, 2], "FP32")
  x.set_data_from_numpy(numpy.zeros([1, 2], "float32"))
  client.infer("mnist", [x]).as_numpy("y")
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL.onnx", help="what to serve")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="0 lets the system choose (%(default)s)"
    )
    parser.add_argument("--unix", type=Path, metavar="PATH", help="listen on a Unix socket too")
    parser.add_argument("--threads", type=int,
                        help="per model (1, or as the ladder beside it says)")  # fmt: skip
    parser.add_argument(
        "--waiting", type=int, default=256, metavar="N",
        help="requests that may wait for one model; beyond it 503 (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--model-control", action="store_true", help="clients may unload models and load them again"
    )
    parser.add_argument(
        "--shared-memory", action="store_true",
        help="clients may pass tensors in system shared memory; only trusted ones should",
    )  # fmt: skip
    parser.add_argument(
        "--token-file", type=Path, metavar="PATH",
        help="clients must show what it holds: Authorization: Bearer TOKEN",
    )  # fmt: skip
    parser.add_argument(
        "--to-anybody", action="store_true",
        help="with --host: others in the network may ask without a token",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if not 0 <= arguments.port <= 65_535:
        raise BadInput(f"cannot listen on port {arguments.port}: 0 to 65535")
    if not 1 <= arguments.waiting <= 100_000:
        raise BadInput(f"cannot let {arguments.waiting} requests wait: 1 to 100000")
    requests = [_request(text, threads=arguments.threads) for text in arguments.models]
    names = [request.name for request in requests]
    if len(set(names)) < len(names):
        raise BadInput(f"cannot serve two models under one name: {', '.join(names)}")
    asyncio.run(_serve(requests, arguments))
    return 0


def _request(text: str, *, threads: int | None) -> LoadRequest:
    name, equals, given = text.partition("=")
    if not equals or not given:
        raise BadInput(f"cannot serve {text!r}: write NAME=MODEL.onnx")
    path = Path(given).absolute()
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot serve {given}: {error.strerror}") from error
    return LoadRequest(
        name=topics.check_name(name, what="model name"),
        version=1,
        path=str(path),
        sha256=sha256,
        index=1,
        runtime=as_measured.runtime(path, threads=threads),
    )


async def _serve(requests: list[LoadRequest], arguments: argparse.Namespace) -> None:
    supervisor = Supervisor(
        host=arguments.host,
        port=arguments.port,
        unix_path=arguments.unix,
        offer=Offer(
            shared_memory=arguments.shared_memory,
            model_control=arguments.model_control,
            most_waiting=arguments.waiting,
            token_file=arguments.token_file,
            to_anybody=arguments.to_anybody,
        ),
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    await supervisor.start()
    try:
        for request in requests:
            await supervisor.load(request)
        url = f"http://{_host(arguments.host)}:{supervisor.http_port}"
        for request in requests:
            sys.stdout.write(f"serving {request.name}: curl {url}/v2/models/{request.name}\n")
        sys.stdout.flush()
        await stopping.wait()
    finally:
        await supervisor.stop()


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
