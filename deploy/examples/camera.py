"""Frames of a camera through shared memory: nothing is copied between you and the model.

    pip install "tritonclient[http]"
    trimtab serve m=model.onnx --shared-memory
    python deploy/examples/camera.py --model m --frames 100

Each frame is written where the model reads it, each answer read where the model wrote it. Instead
of `picture`, let your camera write into `frame`.
"""

import argparse
import os
import time
from typing import Any

import numpy as np
import tritonclient.http as triton
from geventhttpclient.response import HTTPConnectionClosed
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, shared_memory, triton_to_np_dtype

Array = NDArray[Any]
_TRIES = 3


class Eye:
    """A model with one input, and the memory that it shares with us."""

    def __init__(self, client: triton.InferenceServerClient, model: str) -> None:
        """Make room for one frame and for what the model says about it."""
        metadata = client.get_model_metadata(model)
        (spec,) = metadata["inputs"]
        shape = [1 if size == -1 else size for size in spec["shape"]]
        dtype = np.dtype(triton_to_np_dtype(spec["datatype"]))
        tensor = triton.InferInput(spec["name"], shape, spec["datatype"])
        tensor.set_data_from_numpy(np.zeros(shape, dtype))
        first = client.infer(model, [tensor])  # tells how large the outputs are
        likes = {each["name"]: first.as_numpy(each["name"]) for each in metadata["outputs"]}
        self._size = int(np.prod(shape)) * dtype.itemsize
        self._room = self._size + sum(_aligned(like.nbytes) for like in likes.values()) + 64
        self._name = f"camera-{os.getpid()}"
        self._memory = shared_memory.create_shared_memory_region(
            self._name, f"/{self._name}", self._room
        )
        self._client, self._model = client, model
        self.frame: Array = shared_memory.get_contents_as_numpy(self._memory, dtype, shape)
        self.answers: dict[str, Array] = {}
        tensor.set_shared_memory(self._name, self._size)
        self._inputs, self._outputs, at = [tensor], [], _aligned(self._size)
        for name, like in likes.items():
            self.answers[name] = shared_memory.get_contents_as_numpy(
                self._memory, like.dtype, like.shape, at
            )
            output = triton.InferRequestedOutput(name)
            output.set_shared_memory(self._name, like.nbytes, at)
            self._outputs.append(output)
            at += _aligned(like.nbytes)
        self._register()

    def _register(self) -> None:
        self._client.register_system_shared_memory(self._name, f"/{self._name}", self._room)

    def look(self) -> None:
        """Run the model on `frame`; afterwards `answers` holds what it says.

        Where the server was started anew meanwhile, it knows neither the connection nor the memory.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                self._client.infer(self._model, self._inputs, outputs=self._outputs)
                return
            except HTTPConnectionClosed:
                if attempt == _TRIES:
                    raise
            except InferenceServerException as error:
                if attempt == _TRIES or error.status() != "404":
                    raise
                self._register()

    def close(self) -> None:
        """Give the memory back."""
        self._client.unregister_system_shared_memory(self._name)
        del self.frame, self.answers
        shared_memory.destroy_shared_memory_region(self._memory)


def _aligned(size: int) -> int:
    """To whole cache lines: kernels like to load from there."""
    return -(-size // 64) * 64


def picture(frame: Array, at: int) -> None:
    """Stands for a camera: something that moves."""
    frame[...] = 0
    frame.reshape(-1)[at * 97 % frame.size :: 1009] = 1


def main() -> None:
    """Look at some frames, and say how long that took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--model", required=True)
    parser.add_argument("--frames", type=int, default=100)
    arguments = parser.parse_args()
    with triton.InferenceServerClient(arguments.url) as client:
        eye = Eye(client, arguments.model)
        took_ms = []
        try:
            for at in range(arguments.frames):
                picture(eye.frame, at)
                began = time.perf_counter()
                eye.look()
                took_ms.append((time.perf_counter() - began) * 1e3)
            for name, answer in eye.answers.items():
                print(f"{name} {answer.shape}: {answer.ravel()[:5]} ...")
                del answer
        finally:
            eye.close()
        print(f"{len(took_ms)} frames, {np.median(took_ms):.2f} ms each in the median")


if __name__ == "__main__":
    main()
